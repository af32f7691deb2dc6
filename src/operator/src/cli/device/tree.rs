//! A stack drawn as `lsblk` draws devices, each with what it is for.

use std::io::{self, Write};

use clap::Args;
use eratrack_dm::{Host, Known, Lookup};
use eratrack_model::names::{Mapping, Part, Role, StackId};
use eratrack_model::record::Record;
use eratrack_model::units::DevNo;
use serde::Serialize;

use super::machine::MachineArgs;
use super::output::size;
use super::view::{StackView, State};
use super::{DeviceError, target};

/// What to draw.
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// The stack: its name, or any device of it; without this, all of them
    #[arg(value_name = "DEVICE")]
    device: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: TreeFormat,
    #[command(flatten)]
    machine: MachineArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum TreeFormat {
    /// Drawn with lines
    #[default]
    Table,
    /// Nested objects
    Json,
}

/// A device and what it is made of.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Node {
    name: String,
    number: Option<String>,
    role: String,
    note: String,
    over: Vec<Node>,
}

/// Draws one stack, or all.
pub(super) fn run(args: &TreeArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let stacks = match &args.device {
        Some(named) => vec![target::stack(&host, named)?],
        None => host.stacks()?.into_iter().map(|Known { stack, .. }| stack).collect(),
    };
    let mut trees = Vec::new();
    for stack in stacks {
        trees.push(of_stack(&host, &stack)?);
    }
    print(args.output, &trees, out).map_err(DeviceError::Print)
}

fn print(format: TreeFormat, trees: &[Node], out: &mut impl Write) -> io::Result<()> {
    match format {
        TreeFormat::Json => {
            serde_json::to_writer(&mut *out, trees)?;
            writeln!(out)
        }
        TreeFormat::Table => trees.iter().try_for_each(|tree| draw(tree, out)),
    }
}

fn of_stack(host: &Host, stack: &StackId) -> Result<Node, DeviceError> {
    let Some(record) = host.record(stack)? else {
        let role = "stack".to_owned();
        let note = "no record; `eratrack device detach` removes what is left".to_owned();
        return Ok(Node { name: stack.to_string(), number: None, role, note, over: Vec::new() });
    };
    let view = StackView::of_record(host, &record)?.asking_era(host, &record)?;
    let below = match view.state {
        State::Intact => vec![era(host, &record, &view)?],
        _ => own_table(host, record.x),
    };
    let state = view
        .why
        .as_ref()
        .map_or_else(|| format!("{:?}", view.state), |why| format!("{:?}: {why}", view.state));
    let bytes = view.details.as_ref().map_or(0, |details| details.device_bytes);
    let role = if record.stage.is_some() { "staged device" } else { "device" };
    Ok(Node {
        name: record.name.to_string(),
        number: Some(record.x.to_string()),
        role: role.to_owned(),
        note: format!("{}, stack {stack}, {state}", size(bytes)),
        over: below,
    })
}

fn era(host: &Host, record: &Record, view: &StackView) -> Result<Node, DeviceError> {
    let stack = &record.stack;
    let note = view.era.as_ref().map_or_else(String::new, |era| {
        let held =
            era.held.map_or(String::new(), |block| format!(", snapshot held at block {block}"));
        let (used, total) = (era.metadata_blocks_used, era.metadata_blocks_total);
        format!(
            "era {}, blocks of {}, metadata {used}/{total}{held}",
            era.current, record.granularity
        )
    });
    let number = number_of(host, stack, Role::Era.into())?;
    let base = number_of(host, stack, Role::Base.into())?;
    let mut over = vec![Node {
        name: stack.name(Role::Base).to_string(),
        number: base.map(|number| number.to_string()),
        role: "base".to_owned(),
        note: "the device's own table".to_owned(),
        over: base.map(|base| own_table(host, base)).unwrap_or_default(),
    }];
    if let Some(access) = number_of(host, stack, Mapping::Access.into())? {
        over.push(leaf(stack.name(Mapping::Access).to_string(), access, "era access"));
    }
    let metadata = number.and_then(|era| host.live_table(era).ok().flatten());
    let metadata =
        metadata.and_then(|table| table.devices().find(|dev| Some(**dev) != base).copied());
    over.extend(metadata.map(|dev| leaf(name(host, dev), dev, "metadata")));
    let number = number.map(|number| number.to_string());
    Ok(Node { name: stack.name(Role::Era).to_string(), number, role: "era".into(), note, over })
}

fn number_of(host: &Host, stack: &StackId, part: Part) -> Result<Option<DevNo>, DeviceError> {
    Ok(host.mapped(&Lookup::Uuid(stack.uuid(part)))?.map(|info| info.number))
}

/// What a device's table leads to, one level down.
fn own_table(host: &Host, dev: DevNo) -> Vec<Node> {
    let table = host.live_table(dev).ok().flatten();
    let mut below: Vec<DevNo> = table.iter().flat_map(|table| table.devices().copied()).collect();
    below.dedup();
    below.into_iter().map(|dev| leaf(name(host, dev), dev, "disk or volume")).collect()
}

fn leaf(name: String, number: DevNo, role: &str) -> Node {
    Node {
        name,
        number: Some(number.to_string()),
        role: role.to_owned(),
        note: String::new(),
        over: Vec::new(),
    }
}

fn name(host: &Host, dev: DevNo) -> String {
    let mapped = host.mapped(&dev.into()).ok().flatten().map(|info| info.name.to_string());
    let link = || std::fs::read_link(format!("/sys/dev/block/{dev}")).ok();
    let kernel = || Some(link()?.file_name()?.to_string_lossy().into_owned());
    mapped.or_else(kernel).unwrap_or_else(|| dev.to_string())
}

fn draw(tree: &Node, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", caption(tree))?;
    branches(&tree.over, "", out)
}

fn branches(nodes: &[Node], indent: &str, out: &mut impl Write) -> io::Result<()> {
    for (index, node) in nodes.iter().enumerate() {
        let (bend, below) =
            if index + 1 == nodes.len() { ("└─", "  ") } else { ("├─", "│ ") };
        writeln!(out, "{indent}{bend}{}", caption(node))?;
        branches(&node.over, &format!("{indent}{below}"), out)?;
    }
    Ok(())
}

fn caption(node: &Node) -> String {
    let number = node.number.as_ref().map_or(String::new(), |number| format!(" ({number})"));
    let said = if node.note.is_empty() { String::new() } else { format!(": {}", node.note) };
    format!("{}{number} {}{said}", node.name, node.role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_with_lines() {
        let dev = |minor| DevNo { major: 253, minor };
        let base = Node {
            over: vec![leaf("sda".into(), dev(9), "disk or volume")],
            ..leaf("eratrack-a-base".into(), dev(2), "base")
        };
        let metadata = leaf("loop0".into(), dev(7), "metadata");
        let era = Node {
            note: "era 4".into(),
            over: vec![base, metadata],
            ..leaf("eratrack-a-era".into(), dev(1), "era")
        };
        let tree = Node { over: vec![era], ..leaf("vg-data".into(), dev(0), "device") };
        let mut out = Vec::new();
        draw(&tree, &mut out).unwrap();
        let expected = "\
vg-data (253:0) device
└─eratrack-a-era (253:1) era: era 4
  ├─eratrack-a-base (253:2) base
  │ └─sda (253:9) disk or volume
  └─loop0 (253:7) metadata
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
