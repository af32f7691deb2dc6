//! One boundary over several volumes, as the program's users draw it.

mod common;

use common::{Eratrack, blocks};
use kit::{Disk, VolumeGroup, run};

#[test]
#[ignore = "kernel tier"]
fn one_boundary_over_several_volumes_tells_what_each_had_written_since() {
    let eratrack = Eratrack::new();
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let names = ["a", "b", "c"];
    for name in names {
        group.thick(name, 16);
        eratrack.ok(&format!("attach /dev/{}/{name} --granularity 64Ki", group.name()));
    }
    let write = |name: &str, block: u64| {
        let to = format!("/dev/{}/{name}", group.name());
        run(&format!("dd if=/dev/urandom of={to} bs=64k count=1 seek={block} oflag=direct"));
    };
    for name in names {
        write(name, 1);
    }
    let drawn = eratrack.json("boundary a b c");
    let eras: Vec<_> = drawn.as_array().expect("one each").iter().map(|it| &it["era"]).collect();
    let held: Vec<_> =
        drawn.as_array().unwrap().iter().map(|it| &it["drainedMilliseconds"]).collect();
    assert!(eras.len() == 3 && held.windows(2).all(|pair| pair[0] == pair[1]), "{drawn}");
    for (block, name) in (2..).zip(names) {
        write(name, block);
    }
    for ((block, name), era) in (2..).zip(names).zip(eras) {
        let changed = eratrack.ok(&format!("changed {name} --since {era}"));
        assert_eq!(blocks(&changed), [block], "{name}");
    }
    // As many lines as there are volumes, for scripts.
    assert_eq!(eratrack.ok("boundary c a --output name").lines().count(), 2);
    let said = eratrack.fails("boundary a b a", 5);
    assert!(said.contains("stack a was named twice"), "{said}");
    for name in names {
        eratrack.ok(&format!("detach {name}"));
    }
}
