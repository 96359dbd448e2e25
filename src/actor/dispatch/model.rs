//! A model of dispatch with dying children, lost mailboxes, and transactions that claim units at any time.
//!
//! The laws: after every step each unit without an outcome is claimed by one transaction, or in a place from which it
//! will be claimed. An epoch arrives with exactly the rows of its units. Once deaths stop, each unit gets its outcome,
//! without the sweep unless a message to the supervisor was lost.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use futures::channel::oneshot;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::flight::Room;
use crate::outcome::{Outcome, Told, Unavailable, UnavailableCause};
use crate::unit::UnitOfWork;

const BATCHERS: usize = 3;
const COORDINATOR: usize = BATCHERS;
const LANES: usize = 3;
/// The rows of three units.
const MAX_BATCH_ROWS: usize = 9;

type Submissions = Vec<Arc<Submission>>;

#[derive(Debug)]
enum ToChild {
    Absorb(EpochId, Submissions),
    /// The answer goes to this incarnation of the coordinator.
    Seal(EpochId, u64),
    Sealed(EpochId, Submissions),
    Ready(EpochId, usize, Submissions),
    Discard(EpochId),
}

#[derive(Debug)]
enum ToSupervisor {
    Arrived,
    Failing(EpochId),
    /// Whether it wrote some of its units.
    Finished(EpochId, bool),
    Stopped(usize),
}

#[derive(Debug, Default)]
struct Arriving {
    submissions: Option<Submissions>,
    batches: [Option<Submissions>; BATCHERS],
}

/// A batcher has batches; the coordinator has those that arrived.
#[derive(Debug, Default)]
struct Child {
    incarnation: u64,
    dead: bool,
    mailbox: VecDeque<ToChild>,
    batches: BTreeMap<EpochId, Submissions>,
    arriving: BTreeMap<EpochId, Arriving>,
    discarded_below: EpochId,
}

/// A mailbox without a reader accepts no message.
#[derive(Debug, Default)]
struct Children(RefCell<[Child; BATCHERS + 1]>, Rc<Meanwhile>);

/// What happens while the supervisor is at work.
#[derive(Debug, Default)]
struct Meanwhile {
    /// Units that are accepted when the next epoch is sealed, by a registry, and their outcomes.
    units: RefCell<Vec<(Arc<InFlight>, UnitOfWork)>>,
    outcomes: RefCell<Vec<oneshot::Receiver<Told>>>,
    /// How often units were announced, by their tasks or by the supervisor itself.
    announced: Cell<usize>,
}

impl Meanwhile {
    fn accept(&self, in_flight: &InFlight, unit: UnitOfWork) -> bool {
        let permit = || Arc::new(Semaphore::new(1)).try_acquire_many_owned(1).unwrap();
        let accepted = in_flight.accept(unit, Room { rows: permit(), bytes: permit() }).unwrap();
        self.outcomes.borrow_mut().push(accepted.outcome);
        accepted.must_tell
    }
}

impl Children {
    fn tell(&self, child: usize, message: ToChild) {
        let child = &mut self.0.borrow_mut()[child];
        if !child.dead {
            child.mailbox.push_back(message);
        }
    }

    fn replace(&self, child: usize, in_flight: &InFlight) {
        let child = &mut self.0.borrow_mut()[child];
        let (incarnation, discarded_below) = (child.incarnation + 1, in_flight.next_epoch());
        *child = Child { incarnation, discarded_below, ..Child::default() };
    }
}

impl Children {
    /// One child reads a message; returns the task of the epoch that this completed.
    fn step(&self, number: usize, supervisor: u64) -> Option<Task> {
        let mut children = self.0.borrow_mut();
        let child = &mut children[number];
        match child.mailbox.pop_front()? {
            ToChild::Absorb(epoch, units) => child.batches.entry(epoch).or_default().extend(units),
            ToChild::Seal(epoch, to) => {
                let batch = child.batches.remove(&epoch).unwrap_or_default();
                if children[COORDINATOR].incarnation == to {
                    drop(children);
                    self.tell(COORDINATOR, ToChild::Ready(epoch, number, batch));
                }
            }
            ToChild::Discard(below) => {
                child.batches = child.batches.split_off(&below);
                child.arriving = child.arriving.split_off(&below);
                child.discarded_below = below;
            }
            ToChild::Sealed(epoch, _) | ToChild::Ready(epoch, ..) if epoch < child.discarded_below => {}
            ToChild::Sealed(epoch, submissions) => {
                child.arriving.entry(epoch).or_default().submissions = Some(submissions);
                return child.join(epoch, supervisor);
            }
            ToChild::Ready(epoch, batcher, batch) => {
                child.arriving.entry(epoch).or_default().batches[batcher] = Some(batch);
                return child.join(epoch, supervisor);
            }
        }
        None
    }
}

impl Workers for Children {
    fn absorb(&self, epoch: EpochId, submissions: &[Arc<Submission>]) {
        let rows: Vec<usize> = submissions.iter().map(|submission| submission.unit().get().rows()).collect();
        assert!(rows.iter().all(|rows| *rows == 3), "{rows:?}");
        for batcher in 0..BATCHERS {
            self.tell(batcher, ToChild::Absorb(epoch, submissions.to_vec()));
        }
    }

    fn announce_arrivals(&self) {
        self.1.announced.update(|announced| announced + 1);
    }

    fn seal(&self, epoch: EpochId, _: usize, submissions: Submissions) {
        for (in_flight, unit) in self.1.units.take() {
            if self.1.accept(&in_flight, unit) {
                self.announce_arrivals();
            }
        }
        let coordinator = self.0.borrow()[COORDINATOR].incarnation;
        for batcher in 0..BATCHERS {
            self.tell(batcher, ToChild::Seal(epoch, coordinator));
        }
        self.tell(COORDINATOR, ToChild::Sealed(epoch, submissions));
    }

    fn discard(&self, below: EpochId) {
        for child in 0..=COORDINATOR {
            self.tell(child, ToChild::Discard(below));
        }
    }
}

/// A task that commits an epoch.
#[derive(Debug)]
struct Task {
    /// The supervisor to which it reports its end.
    supervisor: u64,
    epoch: EpochId,
    submissions: Submissions,
}

struct World {
    in_flight: Arc<InFlight>,
    /// The number of the supervisor, from 1.
    supervisor: u64,
    dispatch: Dispatch,
    children: Children,
    /// Children of the previous supervisor: they live until they have read their messages.
    orphans: Children,
    inbox: VecDeque<ToSupervisor>,
    /// Tasks that have not claimed their units yet.
    spawned: VecDeque<Task>,
    claimed: VecDeque<Task>,
    /// Whether the supervisor was not notified of units that arrived: it will find them by its next step or the sweep.
    lost: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// A unit of this restaurant and this dish. The notification, if there is one, may go to a dead supervisor.
    Submit {
        restaurant: u8,
        dish: u8,
        lost: bool,
    },
    /// A unit that is accepted while an epoch is sealed.
    SubmitMeanwhile {
        restaurant: u8,
        dish: u8,
    },
    Supervisor,
    Child(usize),
    Orphan(usize),
    Claim(usize),
    Fail(usize),
    Finish(usize),
    KillChild(usize),
    KillSupervisor,
    Sweep,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_u8..4, 0_u8..4).prop_map(|(restaurant, dish)| Step::Submit { restaurant, dish, lost: false }),
        1 => (0_u8..4, 0_u8..4).prop_map(|(restaurant, dish)| Step::Submit { restaurant, dish, lost: true }),
        2 => (0_u8..4, 0_u8..4).prop_map(|(restaurant, dish)| Step::SubmitMeanwhile { restaurant, dish }),
        16 => Just(Step::Supervisor),
        40 => (0..=COORDINATOR).prop_map(Step::Child),
        10 => (0..=COORDINATOR).prop_map(Step::Orphan),
        5 => any::<usize>().prop_map(Step::Claim),
        2 => any::<usize>().prop_map(Step::Fail),
        4 => any::<usize>().prop_map(Step::Finish),
        2 => (0..=COORDINATOR).prop_map(Step::KillChild),
        1 => Just(Step::KillSupervisor),
        1 => Just(Step::Sweep),
        1 => Just(Step::Flush),
    ]
}

impl World {
    fn new() -> Self {
        let in_flight = Arc::new(InFlight::new(Arc::default()));
        let dispatch = Dispatch::new(Arc::clone(&in_flight), LANES, MAX_BATCH_ROWS);
        let mut world = Self {
            in_flight,
            supervisor: 1,
            dispatch,
            children: Children::default(),
            orphans: Children::default(),
            inbox: VecDeque::new(),
            spawned: VecDeque::new(),
            claimed: VecDeque::new(),
            lost: false,
        };
        world.start_over();
        world
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Submit { restaurant, dish, lost } => self.submit(restaurant, dish, lost),
            Step::SubmitMeanwhile { restaurant, dish } => {
                let unit = (Arc::clone(&self.in_flight), unit_of(restaurant, dish));
                self.children.1.units.borrow_mut().push(unit);
            }
            Step::Supervisor => self.step_supervisor(),
            Step::Child(child) => self.spawned.extend(self.children.step(child, self.supervisor)),
            // Orphaned tasks report their end to the dead supervisor.
            Step::Orphan(child) => self.spawned.extend(self.orphans.step(child, 0)),
            Step::Claim(task) => self.claim(task),
            Step::Fail(task) => self.fail(task),
            Step::Finish(task) => self.finish(task),
            Step::KillChild(child) => self.kill_child(child),
            Step::KillSupervisor => self.kill_supervisor(),
            Step::Sweep => self.sweep(),
            Step::Flush => {
                self.lost = false;
                self.dispatch.flush(&self.children);
            }
        }
        self.inbox.extend((0..self.children.1.announced.take()).map(|_| ToSupervisor::Arrived));
        self.check();
    }

    fn submit(&mut self, restaurant: u8, dish: u8, lost: bool) {
        if self.children.1.accept(&self.in_flight, unit_of(restaurant, dish)) {
            if lost {
                self.lost = true;
            } else {
                self.inbox.push_back(ToSupervisor::Arrived);
            }
        }
    }

    fn step_supervisor(&mut self) {
        let message = self.inbox.pop_front();
        // These steps take what arrived.
        self.lost &= !matches!(message, Some(ToSupervisor::Arrived | ToSupervisor::Finished(..)));
        match message {
            Some(ToSupervisor::Arrived) => self.dispatch.arrived(&self.children),
            Some(ToSupervisor::Failing(epoch)) => self.dispatch.failing(epoch),
            Some(ToSupervisor::Finished(epoch, wrote)) => self.dispatch.finished(epoch, wrote, &self.children),
            Some(ToSupervisor::Stopped(child)) => {
                self.children.replace(child, &self.in_flight);
                self.start_over();
            }
            None => {}
        }
    }

    fn start_over(&mut self) {
        self.lost = false;
        self.dispatch.start_over(&self.children);
    }

    fn sweep(&mut self) {
        self.lost = false;
        self.dispatch.sweep(&self.children);
    }

    fn claim(&mut self, task: usize) {
        let Some(task) = pick(&mut self.spawned, task) else { return };
        if self.in_flight.claim(task.epoch, &task.submissions) {
            self.claimed.push_back(task);
        } else {
            self.tell_finished(&task, false);
        }
    }

    fn fail(&mut self, task: usize) {
        let Some(task) = task.checked_rem(self.claimed.len()).map(|task| &self.claimed[task]) else { return };
        if task.supervisor == self.supervisor {
            self.inbox.push_back(ToSupervisor::Failing(task.epoch));
        }
    }

    fn finish(&mut self, task: usize) {
        let Some(task) = pick(&mut self.claimed, task) else { return };
        for submission in &task.submissions {
            let cause = UnavailableCause::EngineFailed;
            let outcome = Outcome::Unavailable(Unavailable { commit_under_way: false, attempts: 1, cause });
            assert!(self.in_flight.settle(submission, outcome), "only one transaction has the unit");
        }
        // An arbitrary choice.
        self.tell_finished(&task, task.epoch % 2 == 0);
    }

    fn tell_finished(&mut self, task: &Task, wrote: bool) {
        if task.supervisor == self.supervisor {
            self.inbox.push_back(ToSupervisor::Finished(task.epoch, wrote));
        }
    }

    fn kill_child(&mut self, child: usize) {
        let dying = &mut self.children.0.borrow_mut()[child];
        if !dying.dead {
            *dying = Child { dead: true, incarnation: dying.incarnation, ..Child::default() };
            self.inbox.push_back(ToSupervisor::Stopped(child));
        }
    }

    /// Messages to a dead child are lost with it.
    fn kill_supervisor(&mut self) {
        self.supervisor += 1;
        self.inbox.clear();
        self.orphans = std::mem::take(&mut self.children);
        self.children.1 = Rc::clone(&self.orphans.1);
        for child in 0..=COORDINATOR {
            self.children.replace(child, &self.in_flight);
        }
        self.dispatch = Dispatch::new(Arc::clone(&self.in_flight), LANES, MAX_BATCH_ROWS);
        self.start_over();
    }

    /// The first law.
    fn check(&self) {
        let is_told = self.inbox.iter().any(|message| matches!(message, ToSupervisor::Arrived));
        let is_found = is_told || self.lost || self.dispatch.lanes.iter().all(|lane| lane.sealed > 0);
        let claimed: Vec<u64> = self.claimed.iter().flat_map(|task| numbers(&task.submissions)).collect();
        let mut once = HashSet::new();
        assert!(claimed.iter().all(|number| once.insert(*number)), "claimed twice: {claimed:?}");
        let Dispatch { lanes, sealed, held, .. } = &self.dispatch;
        let open: Vec<&OpenEpoch> = lanes.iter().filter_map(|lane| lane.open.as_ref()).collect();
        let held: HashSet<u64> = held.iter().map(|held| held.submission.number).collect();
        for submission in self.in_flight.without_outcome() {
            let (number, epoch) = (submission.number, submission.epoch());
            let waits = held.contains(&number) || submission.is_arriving() && is_found;
            let is_open = |epoch| {
                let epoch = open.iter().find(|open| open.epoch == epoch);
                epoch.is_some_and(|open| numbers(&open.submissions).any(|other| other == number))
            };
            let is_somewhere =
                once.contains(&number) || epoch.map_or(waits, |epoch| sealed.contains_key(&epoch) || is_open(epoch));
            assert!(is_somewhere, "unit {number} of epoch {epoch:?} is in no place that leads to a commit");
        }
    }

    /// The last law.
    fn settle_down(&mut self) {
        if self.lost {
            self.sweep();
        }
        loop {
            let busy = self.children.0.borrow().iter().any(|child| !child.mailbox.is_empty());
            if self.inbox.is_empty() && self.spawned.is_empty() && self.claimed.is_empty() && !busy {
                break;
            }
            self.take(&Step::Supervisor);
            for child in 0..=COORDINATOR {
                self.take(&Step::Child(child));
            }
            self.take(&Step::Claim(0));
            self.take(&Step::Finish(0));
        }
        for outcome in self.children.1.outcomes.borrow_mut().iter_mut() {
            assert!(matches!(outcome.try_recv(), Ok(Some(_))), "a unit without an outcome");
        }
        let children = self.children.0.borrow();
        let mut children = children.iter();
        assert!(children.all(|child| child.batches.is_empty() && child.arriving.is_empty()), "rows of no epoch");
        let Dispatch { lanes, sealed, routing, held, .. } = &self.dispatch;
        assert!(sealed.is_empty() && routing.is_empty() && held.iter().all(|held| !held.submission.is_unrouted()));
        assert!(
            lanes
                .iter()
                .all(|lane| lane.open.is_none() && lane.sealed == 0 && lane.rows == 0 && lane.failing.is_none()),
            "{lanes:?}"
        );
    }
}

impl Child {
    /// The epoch's task, if the epoch is complete.
    fn join(&mut self, epoch: EpochId, supervisor: u64) -> Option<Task> {
        let arriving = &self.arriving[&epoch];
        if arriving.submissions.is_none() || arriving.batches.iter().any(Option::is_none) {
            return None;
        }
        let Arriving { submissions, batches } = self.arriving.remove(&epoch)?;
        let submissions = submissions?;
        for batch in batches.into_iter().flatten() {
            let same = batch.len() == submissions.len()
                && batch.iter().zip(&submissions).all(|(absorbed, submission)| Arc::ptr_eq(absorbed, submission));
            assert!(same, "epoch {epoch}: it has the rows of other units");
        }
        Some(Task { supervisor, epoch, submissions })
    }
}

fn unit_of(restaurant: u8, dish: u8) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(format!("restaurant {restaurant}")).handle();
    let dish = unit.dish(format!("dish {dish}")).handle();
    unit.connection(restaurant, dish);
    unit
}

fn numbers(submissions: &[Arc<Submission>]) -> impl Iterator<Item = u64> {
    submissions.iter().map(|submission| submission.number)
}

fn pick<T>(from: &mut VecDeque<T>, number: usize) -> Option<T> {
    let number = number.checked_rem(from.len())?;
    from.remove(number)
}

/// A unit without conflicting keys avoids a blocked lane, however few rows that lane has.
#[test]
fn a_lane_whose_epoch_fails_is_the_last_choice() {
    let mut world = World::new();
    let lanes = |world: &World| world.dispatch.lanes.iter().map(|lane| lane.rows).collect::<Vec<_>>();
    let submit = |world: &mut World, numbers: std::ops::Range<u8>| {
        for number in numbers {
            world.submit(number, number, false);
            world.dispatch.arrived(&world.children);
        }
    };
    submit(&mut world, 0..1);
    let failing = *world.dispatch.sealed.keys().next().unwrap();
    world.dispatch.failing(failing);
    submit(&mut world, 1..7);
    assert_eq!(lanes(&world), [3, 9, 9]);
    world.dispatch.finished(failing, false, &world.children);
    submit(&mut world, 7..9);
    assert_eq!(lanes(&world), [6, 9, 9]);
}

/// Otherwise they would wait for the sweep: nothing else looks for them.
#[test]
fn units_that_arrive_during_a_step_are_announced_if_a_lane_is_free() {
    let mut world = World::new();
    for number in 0..LANES as u8 {
        world.submit(number, number, false);
        world.dispatch.arrived(&world.children);
    }
    let meanwhile = Rc::clone(&world.children.1);
    assert!(!meanwhile.accept(&world.in_flight, unit_of(8, 8)), "all lanes are busy");
    for submission in &world.in_flight.without_outcome()[1..] {
        let outcome = Unavailable { commit_under_way: false, attempts: 0, cause: UnavailableCause::ShutDown };
        assert!(world.in_flight.settle(submission, Outcome::Unavailable(outcome)));
    }
    meanwhile.units.borrow_mut().push((Arc::clone(&world.in_flight), unit_of(9, 9)));
    world.kill_supervisor();
    assert!(meanwhile.units.borrow().is_empty(), "accepted while the remaining unit's epoch was sealed");
    assert_eq!(meanwhile.announced.get(), 1);
}

/// Restaurants with the same new dish share a lane, until an epoch has written it.
#[test]
fn a_dish_that_was_written_is_no_reason_to_share_a_lane() {
    for (wrote, expected) in [(false, [6, 0, 0]), (true, [3, 3, 0])] {
        let mut world = World::new();
        world.submit(0, 0, false);
        world.dispatch.arrived(&world.children);
        let first = *world.dispatch.sealed.keys().next().unwrap();
        world.dispatch.finished(first, wrote, &world.children);
        for restaurant in 1..3 {
            world.submit(restaurant, 0, false);
            world.dispatch.arrived(&world.children);
        }
        let rows: Vec<usize> = world.dispatch.lanes.iter().map(|lane| lane.rows).collect();
        assert_eq!(rows, expected, "{wrote}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn each_unit_is_committed_once_despite_any_deaths_of_actors(steps in vec(step(), 1..400)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle_down();
    }
}
