//! What was written between two snapshots.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use era_metadata::render;
use eratrack_api::{ConditionType, EraSnapshot, condition};
use eratrack_model::Run;
use eratrack_model::delta::Delta;
use kube::ResourceExt;
use serde::Serialize;

use super::access::Cluster;
use super::claim::Claim;
use super::error::KubectlError;
use crate::delta::{KubeSlices, between};

/// Of which claim, between which snapshots.
#[derive(Debug, Args)]
pub(crate) struct ChangedArgs {
    /// The claim, as NAME or NAMESPACE/NAME
    #[arg(value_name = "CLAIM")]
    claim: Claim,
    /// The earlier snapshot: what was written after its boundary is listed
    #[arg(long, value_name = "SNAPSHOT")]
    from: String,
    /// The later snapshot: what was written up to its boundary is listed
    #[arg(long, value_name = "SNAPSHOT")]
    to: String,
    /// How to print the list
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The kernel's list format, in blocks: 0,2-4,30-49
    #[default]
    List,
    /// An object with the eras, the sizes and the ranges, both ends included (docs/formats.md)
    Json,
    /// Extents in bytes, `offset,length`
    Csv,
}

pub(super) async fn run(
    args: &ChangedArgs,
    cluster: &Cluster,
    out: &mut impl Write,
) -> Result<(), KubectlError> {
    let namespace = cluster.namespace_of(&args.claim)?;
    let all = cluster.snapshots_of(&namespace, &args.claim.name).await?;
    let find = |name| find(&all, &namespace, &args.claim.name, name);
    let (from, to) = (find(&args.from)?, find(&args.to)?);
    let delta = between(&KubeSlices(cluster.client()), &all, from, to).await.map_err(Box::new)?;
    print(args, &namespace, &delta, out).map_err(KubectlError::Print)
}

fn find<'a>(
    all: &'a [EraSnapshot],
    namespace: &str,
    claim: &str,
    name: &str,
) -> Result<&'a EraSnapshot, KubectlError> {
    let found = all.iter().find(|it| it.name_any() == name).ok_or_else(|| {
        let (namespace, claim) = (namespace.to_owned(), claim.to_owned());
        KubectlError::NoSnapshot { namespace, claim, snapshot: name.to_owned() }
    })?;
    let status = found.status.as_ref();
    match status.and_then(|it| condition::find(&it.conditions, ConditionType::Failed)) {
        Some(failed) if failed.is_true() => {
            Err(KubectlError::Failed { snapshot: name.to_owned(), reason: failed.reason.clone() })
        }
        _ => Ok(found),
    }
}

/// The answer as docs/formats.md describes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    namespace: &'a str,
    claim: &'a str,
    from: &'a str,
    to: &'a str,
    #[serde(rename = "volumeUID")]
    volume_uid: &'a str,
    #[serde(rename = "chainID")]
    chain_id: &'a str,
    since_era: Option<u32>,
    era: u32,
    block_bytes: u64,
    device_bytes: u64,
    listed_blocks: u64,
    listed_bytes: u64,
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    first: u64,
    last: u64,
}

fn print(
    args: &ChangedArgs,
    namespace: &str,
    delta: &Delta,
    out: &mut impl Write,
) -> io::Result<()> {
    let line = &delta.head.line;
    match args.output {
        Format::List => render::list(out, delta.runs.iter()),
        Format::Csv => render::csv(out, line.block.bytes().0, Some(line.size.0), delta.runs.iter()),
        Format::Json => {
            let document = Document {
                namespace,
                claim: &args.claim.name,
                from: &args.from,
                to: &args.to,
                volume_uid: &line.volume,
                chain_id: &line.chain,
                since_era: delta.head.since().ok().map(|era| era.0),
                era: delta.head.era.0,
                block_bytes: line.block.bytes().0,
                device_bytes: line.size.0,
                listed_blocks: delta.runs.blocks(),
                listed_bytes: delta.extents().map(|(_, length)| length.0).sum(),
                ranges: delta
                    .runs
                    .iter()
                    .map(|Run { first, last }| Range { first, last })
                    .collect(),
            };
            serde_json::to_writer(&mut *out, &document)?;
            writeln!(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::KubectlCommand;
    use super::super::testing::{parse, snapshot};
    use super::*;
    use eratrack_model::Era;
    use eratrack_model::delta::{Head, Line, Reach};
    use eratrack_model::units::{Bytes, Granularity};
    use serde_json::json;

    fn args(format: &str) -> ChangedArgs {
        let words = ["changed", "shop/data", "--from", "a", "--to", "c", "-o", format];
        let KubectlCommand::Changed(args) = parse(&words) else { panic!("{words:?}") };
        args
    }

    fn printed(format: &str) -> String {
        let size = Bytes(50 * 4096 - 512);
        let line = Line { volume: "v".into(), chain: "x".into(), block: Granularity::MIN, size };
        let head = Head { snapshot: "c".into(), line, reach: Reach::Since(Era(3)), era: Era(7) };
        let delta = Delta { head, runs: "0,2-4,30-49".parse().unwrap() };
        let mut out = Vec::new();
        print(&args(format), "shop", &delta, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_delta_in_each_format() {
        assert_eq!(printed("list"), "0,2-4,30-49\n");
        assert_eq!(printed("csv"), "offset,length\n0,4096\n8192,12288\n122880,81408\n");
        assert_eq!(printed("json"), include_str!("golden/changed.json"));
    }

    #[test]
    fn a_snapshot_that_is_not_there_or_failed_is_named() {
        let failed = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "ChainBroken", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let all = [snapshot("shop", "data", "a", &failed)];
        let said = |name: &str| find(&all, "shop", "data", name).unwrap_err();
        assert!(said("b").to_string().starts_with("claim shop/data has no EraSnapshot b"));
        assert_eq!(said("b").code(), crate::exit::Code::NotFound);
        assert!(said("a").to_string().contains("failed (ChainBroken)"));
        assert_eq!(said("a").code(), crate::exit::Code::Refused);
    }
}
