use std::str::FromStr;

use super::{Place, Segment, Table, TableError, Target};
use crate::units::{DevNo, Sectors, plain};

impl FromStr for Table {
    type Err = TableError;

    fn from_str(text: &str) -> Result<Self, TableError> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        Self::new(lines.map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl FromStr for Segment {
    type Err = TableError;

    fn from_str(line: &str) -> Result<Self, TableError> {
        let bad = || TableError::Line { line: line.to_owned() };
        let mut words = line.trim().splitn(4, ' ');
        let mut number = || words.next().and_then(plain).map(Sectors).ok_or_else(bad);
        let (start, length) = (number()?, number()?);
        let kind = words.next().filter(|kind| !kind.is_empty()).ok_or_else(bad)?;
        let params = words.next().unwrap_or("");
        Ok(Self { start, length, target: Target::parse(kind, params) })
    }
}

impl Target {
    /// Reads a target as the kernel prints it. It never fails: what does not read back word
    /// for word stays [`Target::Other`], and is refused where its meaning matters.
    pub fn parse(kind: &str, params: &str) -> Self {
        let words: Vec<_> = params.split(' ').collect();
        let typed = match kind {
            "linear" => linear(&words),
            "striped" => striped(&words),
            "thin" => thin(&words),
            "switch" => switch(&words),
            "era" => era(&words),
            "snapshot-origin" => snapshot_origin(&words),
            "snapshot" => snapshot(&words),
            _ => None,
        };
        typed
            .filter(|target| target.params() == params)
            .unwrap_or_else(|| Self::Other { kind: kind.to_owned(), params: params.to_owned() })
    }
}

fn device(word: &str) -> Option<DevNo> {
    word.parse().ok()
}

fn sectors(word: &str) -> Option<Sectors> {
    plain(word).map(Sectors)
}

fn linear(words: &[&str]) -> Option<Target> {
    let [beneath, offset] = words else { return None };
    Some(Target::Linear { device: device(beneath)?, offset: sectors(offset)? })
}

fn striped(words: &[&str]) -> Option<Target> {
    let [_count, chunk, stripes @ ..] = words else { return None };
    Some(Target::Striped { chunk: sectors(chunk)?, stripes: places(stripes)? })
}

fn switch(words: &[&str]) -> Option<Target> {
    let [_count, region, "0", paths @ ..] = words else { return None };
    Some(Target::Switch { region: sectors(region)?, paths: places(paths)? })
}

fn places(words: &[&str]) -> Option<Vec<Place>> {
    let (pairs, []) = words.as_chunks::<2>() else { return None };
    let place = |[beneath, offset]: &[&str; 2]| {
        Some(Place { device: device(beneath)?, offset: sectors(offset)? })
    };
    pairs.iter().map(place).collect()
}

fn thin(words: &[&str]) -> Option<Target> {
    let (pool, id, origin) = match words {
        [pool, id] => (pool, id, None),
        [pool, id, origin] => (pool, id, Some(device(origin)?)),
        _ => return None,
    };
    Some(Target::Thin { pool: device(pool)?, id: plain(id)?, origin })
}

fn era(words: &[&str]) -> Option<Target> {
    let [metadata, origin, granularity] = words else { return None };
    Some(Target::Era {
        metadata: device(metadata)?,
        origin: device(origin)?,
        granularity: sectors(granularity)?,
    })
}

fn snapshot_origin(words: &[&str]) -> Option<Target> {
    let [origin] = words else { return None };
    Some(Target::SnapshotOrigin { origin: device(origin)? })
}

fn snapshot(words: &[&str]) -> Option<Target> {
    let [origin, store, "N", chunk] = words else { return None };
    Some(Target::Snapshot {
        origin: device(origin)?,
        store: device(store)?,
        chunk: sectors(chunk)?,
    })
}

impl TryFrom<String> for Table {
    type Error = TableError;

    fn try_from(text: String) -> Result<Self, TableError> {
        text.parse()
    }
}

impl From<Table> for String {
    fn from(table: Table) -> Self {
        table.to_string()
    }
}
