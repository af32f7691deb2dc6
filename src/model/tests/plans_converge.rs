//! Whatever was begun and killed, planning again finishes or undoes it; and every plan on the
//! way passes the checker.

mod common;

use common::{Machine, STRIPED, THICK, THIN, desired, store, tracked, volume};
use eratrack_model::check::check;
use eratrack_model::plan::{
    Plan, Refusal, plan, plan_boundary, plan_end_point_in_time, plan_point_in_time,
};
use eratrack_model::stack::{Contents, Desired, Subject};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wish {
    Track,
    Untrack,
    Boundary,
    Point,
    EndPoint,
}

const WISHES: [Wish; 5] = [Wish::Track, Wish::Untrack, Wish::Boundary, Wish::Point, Wish::EndPoint];
const VOLUMES: [(&str, bool); 5] =
    [(THICK, true), (THICK, false), (STRIPED, true), (THIN, true), (THIN, false)];

fn planned(machine: &Machine, wish: Wish) -> Result<Plan, Refusal> {
    let observed = machine.observe();
    let plan = match wish {
        Wish::Track => plan(&observed, &desired()),
        Wish::Untrack => plan(&observed, &Desired::Untracked),
        Wish::Boundary => plan_boundary(&observed),
        Wish::Point => plan_point_in_time(&observed, &store()),
        Wish::EndPoint => plan_end_point_in_time(&observed),
    }?;
    if let Err(violation) = check(&plan, &observed) {
        panic!("{violation}\nin the plan\n{plan}for\n{observed:#?}");
    }
    Ok(plan)
}

fn complete(mut machine: Machine, wish: Wish, table: &str) -> Machine {
    let plan = planned(&machine, wish).expect("there is a plan");
    assert!(machine.run(&plan, None));
    let reached = match wish {
        Wish::Track | Wish::Boundary => machine.is_tracked(table),
        Wish::Untrack => machine.is_untouched(table),
        Wish::Point => machine.is_tracked(table) && machine.holds_point_in_time(),
        Wish::EndPoint => machine.origin.is_none() && machine.snapshot.is_none(),
    };
    assert!(reached, "{wish:?} not reached: {machine:#?}\nby\n{plan}");
    let again = match wish {
        Wish::Boundary | Wish::Point => Wish::Track,
        Wish::Track | Wish::Untrack | Wish::EndPoint => wish,
    };
    let again = planned(&machine, again);
    assert_eq!(again.expect("there is a plan").steps, [], "nothing is left to do");
    machine
}

/// Every state in which a kill can leave the machine while it does that.
fn killed(machine: &Machine, wish: Wish) -> Vec<Machine> {
    let Ok(plan) = planned(machine, wish) else { return Vec::new() };
    let cut = |at| {
        let mut machine = machine.clone();
        assert!(!machine.run(&plan, Some(at)));
        machine
    };
    (0..Machine::moves_in(&plan)).map(cut).collect()
}

#[test]
fn two_kills_in_a_row_at_any_moment_are_finished_or_undone() {
    let mut states = 0;
    for (table, lvm) in VOLUMES {
        let bare = Machine::new(volume(table, lvm));
        let whole = complete(bare.clone(), Wish::Track, table);
        let once: Vec<_> = [&bare, &whole]
            .into_iter()
            .flat_map(|start| WISHES.into_iter().flat_map(|wish| killed(start, wish)))
            .collect();
        let twice = once.iter().flat_map(|m| WISHES.into_iter().flat_map(|wish| killed(m, wish)));
        for state in once.iter().cloned().chain(twice) {
            let tracked = complete(state.clone(), Wish::Track, table);
            complete(complete(tracked, Wish::EndPoint, table), Wish::Point, table);
            let through = state.through_era();
            let ended = complete(state.clone(), Wish::EndPoint, table);
            assert_eq!(ended.through_era(), through, "a point in time ends, and nothing else");
            complete(state.clone(), Wish::Untrack, table);
            states += 1;
        }
    }
    assert!(states > 4000, "only {states} states");
}

#[test]
fn a_point_in_time_is_begun_by_one_swap_and_leaves_the_table_as_it_was() {
    for (table, lvm) in VOLUMES {
        let whole = complete(Machine::new(volume(table, lvm)), Wish::Track, table);
        let before = whole.x_live();
        let held = complete(whole, Wish::Point, table);
        assert_eq!(held.boundaries, 1);
        let again = planned(&held, Wish::Point);
        assert!(matches!(again, Err(Refusal::PointInTimeHeld { .. })), "{again:?}");
        let drawn = complete(held.clone(), Wish::Boundary, table);
        assert!(drawn.holds_point_in_time() && drawn.boundaries == 2);
        complete(held.clone(), Wish::Untrack, table);
        assert_eq!(complete(held, Wish::EndPoint, table).x_live(), before);
    }
}

#[test]
fn a_boundary_is_drawn_by_one_drain() {
    for (table, lvm) in VOLUMES {
        let whole = complete(Machine::new(volume(table, lvm)), Wish::Track, table);
        let after = complete(whole, Wish::Boundary, table);
        assert_eq!(after.boundaries, 1);
    }
}

#[test]
fn what_lvm_reloaded_is_cleaned_up_or_tracked_anew() {
    let grown = "0 262144 linear 8:0 2048";
    for (table, after) in [(THICK, grown), (THICK, THICK), (THIN, "0 262144 thin 253:2 7")] {
        let mut whole = complete(Machine::new(volume(table, true)), Wish::Track, table);
        whole.lvm_reloads(after);
        assert!(!whole.through_era());
        assert!(matches!(planned(&whole, Wish::Boundary), Err(Refusal::NotTracked { .. })));
        complete(whole.clone(), Wish::Untrack, after);
        complete(whole.clone(), Wish::Track, after);
        for state in killed(&whole, Wish::Track) {
            complete(state.clone(), Wish::Untrack, after);
            complete(state, Wish::Track, after);
        }
    }
}

/// LVM may come between the look that found X tracked and the plan.
#[test]
fn what_lvm_reloaded_is_not_put_back_on_the_old_chain() {
    let kept = || {
        let mut wanted = tracked();
        wanted.metadata.contents = Contents::Kept;
        Desired::Tracked(wanted)
    };
    for (table, lvm) in VOLUMES {
        let mut whole = complete(Machine::new(volume(table, lvm)), Wish::Track, table);
        assert_eq!(plan(&whole.observe(), &kept()).unwrap().steps, []);
        whole.lvm_reloads(table);
        assert!(matches!(plan(&whole.observe(), &kept()), Err(Refusal::NotTracked { .. })));
    }
}

#[test]
fn orphans_of_a_volume_that_is_gone_are_removed() {
    for (table, lvm) in VOLUMES {
        let bare = Machine::new(volume(table, lvm));
        let whole = complete(bare.clone(), Wish::Track, table);
        for mut state in killed(&bare, Wish::Track).into_iter().chain([whole]) {
            state.x = None;
            assert_eq!(planned(&state, Wish::Track), Err(Refusal::Gone));
            complete(state, Wish::Untrack, table);
        }
    }
}

#[test]
fn somebody_elses_table_in_the_slot_stops_every_change_of_x() {
    for (table, lvm) in VOLUMES {
        let bare = Machine::new(volume(table, lvm));
        let whole = complete(bare.clone(), Wish::Track, table);
        for mut state in [bare, whole] {
            let x = &mut state.x.as_mut().unwrap().device;
            x.inactive = Some("0 131072 linear 8:32 0".parse().unwrap());
            let tracked = state.through_era();
            for wish in WISHES {
                let planned = planned(&state, wish);
                // Without a point in time there is nothing to end.
                if wish != Wish::EndPoint && (tracked || wish == Wish::Track) {
                    assert!(matches!(planned, Err(Refusal::SlotTaken { .. })), "{planned:?}");
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Run(Wish, Option<usize>),
    Reload(bool),
    Foreign,
    ForeignGone,
    Suspend,
    Resume,
}

fn event() -> impl Strategy<Value = Event> {
    let wish = prop::sample::select(WISHES.to_vec());
    prop_oneof![
        6 => (wish, prop::option::weighted(0.7, 0..20usize)).prop_map(|(w, at)| Event::Run(w, at)),
        1 => any::<bool>().prop_map(Event::Reload),
        1 => Just(Event::Foreign),
        1 => Just(Event::ForeignGone),
        1 => Just(Event::Suspend),
        1 => Just(Event::Resume),
    ]
}

const FOREIGN: &str = "0 131072 linear 8:32 0";

fn happen(machine: &mut Machine, event: &Event, table: &mut String) {
    let device = |machine: &mut Machine| machine.x.as_mut().unwrap().device.clone();
    let mut x = device(machine);
    match event {
        Event::Run(wish, at) => {
            if let Ok(plan) = planned(machine, *wish) {
                machine.run(&plan, *at);
            }
            return;
        }
        Event::Reload(other) => {
            if *other {
                *table = table.replace("131072", "262144").replace("8:16", "8:48");
            }
            if !x.suspended {
                machine.lvm_reloads(table);
            }
            return;
        }
        Event::Foreign => x.inactive = Some(FOREIGN.parse().unwrap()),
        Event::ForeignGone if x.inactive.as_ref().is_some_and(|t| t.to_string() == FOREIGN) => {
            x.inactive = None;
        }
        Event::ForeignGone => {}
        Event::Suspend => x.suspended = true,
        Event::Resume => x.suspended = false,
    }
    machine.x.as_mut().unwrap().device = x;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Once nobody interferes any more, both ends can be reached from wherever it went.
    #[test]
    fn any_history_converges(
        which in 0..VOLUMES.len(),
        events in prop::collection::vec(event(), 0..8),
    ) {
        let (table, lvm) = VOLUMES[which];
        let mut table = table.to_owned();
        let mut machine = Machine::new(volume(&table, lvm));
        for event in &events {
            happen(&mut machine, event, &mut table);
        }
        happen(&mut machine, &Event::ForeignGone, &mut table);
        happen(&mut machine, &Event::Resume, &mut table);
        let live = match machine.observe().x {
            Subject::Mapped(x) if machine.through_era() => {
                let base = machine.base.as_ref().and_then(|base| base.live.clone());
                base.map_or_else(|| panic!("{x:?} over nothing"), |base| base.to_string())
            }
            _ => machine.x_live().unwrap(),
        };
        complete(machine.clone(), Wish::Track, &live);
        complete(machine, Wish::Untrack, &live);
    }
}
