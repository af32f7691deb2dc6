//! A stack as it is shown: the same in every command that prints one.

use eratrack_dm::{EraStatus, HeldByHand, Host, Known, Liveness};
use eratrack_model::record::{Keeper, Phase, Record};
use serde::Serialize;

use super::DeviceError;
use super::output::{Show, size};

/// A stack, for people and for scripts (docs/formats.md).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StackView {
    pub(super) stack: String,
    pub(super) state: State,
    /// Why it is not intact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    #[serde(flatten)]
    pub(super) details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) era: Option<EraView>,
}

/// How a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum State {
    /// The device goes through era.
    Intact,
    /// Somebody gave the device another table: what was written since is not known.
    Reloaded,
    /// The device is not there.
    Gone,
    /// The machine has booted since; `restore` puts it back.
    Rebooted,
    /// It is half built, or half taken out; `detach` finishes.
    Unfinished,
    /// Its record is missing or cannot be understood.
    NoRecord,
}

/// What its record says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    pub(super) device: String,
    pub(super) device_number: String,
    pub(super) device_bytes: u64,
    pub(super) granularity_bytes: u64,
    pub(super) blocks: u64,
    pub(super) chain: String,
    pub(super) keeper: Keeper,
    pub(super) discards: eratrack_model::discards::DiscardPolicy,
    pub(super) metadata: String,
    pub(super) metadata_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) staged_over: Option<String>,
    pub(super) era_access: bool,
    pub(super) sealed: bool,
}

/// What era says of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EraView {
    pub(super) current: u32,
    pub(super) metadata_blocks_used: u64,
    pub(super) metadata_blocks_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<u64>,
    pub(super) held_by_hand: bool,
    pub(super) failed: bool,
}

impl StackView {
    /// By what is known without asking era, which would cost it a commit.
    pub(super) fn of(host: &Host, known: Known) -> Result<Self, DeviceError> {
        let stack = known.stack.to_string();
        let bare = |why| Self {
            stack: stack.clone(),
            state: State::NoRecord,
            why,
            details: None,
            era: None,
        };
        match known.record {
            Err(why) => Ok(bare(Some(why))),
            Ok(None) => Ok(bare(None)),
            Ok(Some(record)) => Self::of_record(host, &record),
        }
    }

    /// The same of a record.
    pub(super) fn of_record(host: &Host, record: &Record) -> Result<Self, DeviceError> {
        let (state, why) = state(record, host.liveness(record)?);
        let details = Some(Details::of(record));
        Ok(Self { stack: record.stack.to_string(), state, why, details, era: None })
    }

    /// With what era says, where it is in place.
    pub(super) fn asking_era(mut self, host: &Host, record: &Record) -> Result<Self, DeviceError> {
        if self.state == State::Intact {
            let by_hand = host.held_by_hand(record)?;
            self.era = Some(EraView::of(&host.status(record)?, by_hand));
        }
        Ok(self)
    }
}

fn state(record: &Record, found: Liveness) -> (State, Option<String>) {
    if record.phase != Phase::Attached {
        let why = "it is half built, or half taken out; `eratrack device detach` finishes";
        return (State::Unfinished, Some(why.to_owned()));
    }
    match found {
        Liveness::Intact => (State::Intact, None),
        Liveness::Reloaded { live } => {
            let table = live.map_or_else(|| "none".to_owned(), |table| table.to_string());
            (State::Reloaded, Some(format!("its table is {}", table.replace('\n', "; "))))
        }
        Liveness::Gone => (State::Gone, Some("the device is not there".to_owned())),
        Liveness::Rebooted => {
            let why = "the machine has booted since; `eratrack device restore` puts it back";
            (State::Rebooted, Some(why.to_owned()))
        }
    }
}

impl Details {
    fn of(record: &Record) -> Self {
        Self {
            device: record.name.to_string(),
            device_number: record.x.to_string(),
            device_bytes: record.sectors.to_bytes().map_or(u64::MAX, |bytes| bytes.0),
            granularity_bytes: record.granularity.bytes().0,
            blocks: record.blocks(),
            chain: record.chain.to_string(),
            keeper: record.keeper,
            discards: record.discards,
            metadata: record.metadata.to_string(),
            metadata_bytes: record.metadata_size.0,
            staged_over: record.stage.as_ref().map(|stage| stage.path.display().to_string()),
            era_access: record.access,
            sealed: record.seal.is_some(),
        }
    }
}

impl EraView {
    fn of(status: &EraStatus, by_hand: Option<HeldByHand>) -> Self {
        let held_by_hand = by_hand.is_some();
        match *status {
            EraStatus::Working { era, used, total, held } => Self {
                current: era.0,
                metadata_blocks_used: used,
                metadata_blocks_total: total,
                held,
                held_by_hand,
                failed: false,
            },
            EraStatus::Error => Self {
                current: 0,
                metadata_blocks_used: 0,
                metadata_blocks_total: 0,
                held: None,
                held_by_hand,
                failed: true,
            },
        }
    }
}

/// Several of them.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct StackViews(pub(super) Vec<StackView>);

impl Show for StackViews {
    fn names(&self) -> Vec<String> {
        self.0.iter().map(|view| view.stack.clone()).collect()
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let head =
            vec!["STACK", "DEVICE", "SIZE", "GRANULARITY", "METADATA", "KEEPER", "STATE", "WHY"];
        (head, self.0.iter().map(row).collect())
    }
}

fn row(view: &StackView) -> Vec<String> {
    let details = |of: fn(&Details) -> String| view.details.as_ref().map_or("-".into(), of);
    vec![
        view.stack.clone(),
        details(|it| it.device.clone()),
        details(|it| size(it.device_bytes)),
        details(|it| size(it.granularity_bytes)),
        details(|it| size(it.metadata_bytes)),
        details(|it| format!("{:?}", it.keeper)),
        format!("{:?}", view.state),
        view.why.clone().unwrap_or_default(),
    ]
}

/// One of them in full: a line a fact.
impl Show for StackView {
    fn names(&self) -> Vec<String> {
        vec![self.stack.clone()]
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let mut rows = Vec::new();
        let mut fact = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        fact("stack", self.stack.clone());
        fact("state", format!("{:?}", self.state));
        self.why.iter().for_each(|why| fact("why", why.clone()));
        if let Some(it) = &self.details {
            fact("device", format!("{} ({})", it.device, it.device_number));
            fact("size", format!("{} ({} bytes)", size(it.device_bytes), it.device_bytes));
            fact("granularity", format!("{}, {} blocks", size(it.granularity_bytes), it.blocks));
            fact("chain", it.chain.clone());
            fact("keeper", format!("{:?}", it.keeper));
            fact("discards", format!("{:?}", it.discards));
            fact("metadata", format!("{}, {}", it.metadata, size(it.metadata_bytes)));
            it.staged_over.iter().for_each(|path| fact("staged over", path.clone()));
            fact("era access", it.era_access.to_string());
            fact("sealed", it.sealed.to_string());
        }
        if let Some(it) = &self.era {
            fact("era", if it.failed { "Error: detach it".into() } else { it.current.to_string() });
            let (used, total) = (it.metadata_blocks_used, it.metadata_blocks_total);
            fact("metadata used", format!("{used} of {total} blocks of 4Ki"));
            let by = if it.held_by_hand { "by hand" } else { "by a reader" };
            fact("held", it.held.map_or("nothing".into(), |block| format!("block {block}, {by}")));
        }
        (vec!["FACT", "VALUE"], rows)
    }
}
