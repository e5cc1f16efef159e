//! Random lives in a larger world: several relays, lanes, keys and topics, transactions that stay
//! open, small windows, many faults. A life that breaks the contract is made shorter until each
//! step of it is needed.

use std::time::Instant;

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};

use crate::relay::core::model::{
    Bug, Fault, Scenario,
    database::Key,
    world::{Answer, Step, World},
};

/// k3 shares the lane of k0 and has another topic; topic 2 alone is in lane 2.
const KEYS: &[Key] = &[
    Key {
        name: 0,
        lane: 0,
        topic: 0,
    },
    Key {
        name: 1,
        lane: 1,
        topic: 0,
    },
    Key {
        name: 2,
        lane: 2,
        topic: 2,
    },
    Key {
        name: 3,
        lane: 0,
        topic: 1,
    },
    Key {
        name: 4,
        lane: 1,
        topic: 1,
    },
];
const TOPICS: u8 = 3;
const PROCESSES: usize = 2;

/// Upper bounds of a life, and its steps.
#[derive(Clone, Debug)]
struct Life {
    in_flight: usize,
    rows_per_lane: usize,
    faults_max: u8,
    steps: Vec<Step>,
}

fn any_step() -> impl Strategy<Value = Step> {
    let (at, key, topic, instance) = (0..PROCESSES, 0..KEYS.len(), 0..TOPICS, 0..6_u8);
    let of_process = |step: fn(usize) -> Step| (0..PROCESSES).prop_map(step);
    let answer = prop_oneof![9 => Just(Answer::Arrives), 1 => Just(Answer::Lost)];
    let database = prop_oneof![
        8 => key.prop_map(Step::Insert),
        5 => (0..4_usize).prop_map(Step::Commit),
        1 => (0..4_usize).prop_map(Step::RollBack),
        1 => (0..120_u8).prop_map(Step::Wait),
        1 => instance.prop_map(Step::Expire),
    ];
    let reading = prop_oneof![
        of_process(Step::Plan),
        of_process(Step::Read),
        of_process(Step::Accept)
    ];
    let settling = prop_oneof![
        2 => of_process(Step::Settle),
        1 => of_process(Step::SettleBegins),
        2 => of_process(Step::SettleRuns),
        2 => (at.clone(), answer.clone()).prop_map(|(at, answer)| Step::SettleAnswers(at, answer)),
        1 => of_process(Step::XidTick),
    ];
    let leasing = prop_oneof![
        2 => of_process(Step::Renew),
        1 => of_process(Step::GiveBack),
        1 => of_process(Step::Restart),
        2 => (at.clone(), answer.clone()).prop_map(|(at, answer)| Step::Claim(at, answer)),
        2 => (at.clone(), answer).prop_map(|(at, answer)| Step::Release(at, answer)),
    ];
    let kafka = prop_oneof![
        6 => (0..6_usize, topic.clone()).prop_map(|(from, topic)| Step::Append(from, topic)),
        4 => of_process(Step::Report),
        1 => of_process(Step::NewProducer),
        1 => of_process(Step::AddClient),
        1 => of_process(Step::RemoveClient),
        1 => of_process(Step::DestroyClients),
        1 => (0..6_usize, topic.clone()).prop_map(|(from, topic)| Step::AppendOther(from, topic)),
        1 => of_process(Step::Resume),
        1 => of_process(Step::Probe),
        1 => of_process(Step::AppendProbe),
        1 => of_process(Step::Dispose),
        1 => (at.clone(), topic.clone(), any::<bool>())
            .prop_map(|(at, topic, exists)| Step::TopicSeen(at, topic, exists)),
    ];
    let fault = prop_oneof![
        of_process(Step::Kill),
        of_process(Step::Pause),
        of_process(Step::Wake),
        of_process(Step::LoseLease),
        of_process(Step::Retire),
        Just(Step::RestartIds),
        (at.clone(), topic.clone()).prop_map(|(at, topic)| Step::Refuse(at, topic)),
        (at.clone(), topic.clone(), 1..4_usize)
            .prop_map(|(at, topic, records)| Step::Reject(at, topic, records)),
        (at, topic, 1..4_usize)
            .prop_map(|(at, topic, records)| Step::RejectProbe(at, topic, records)),
    ];
    prop_oneof![
        16 => database,
        18 => reading,
        14 => settling,
        6 => leasing,
        30 => kafka,
        2 => fault,
    ]
}

fn any_life() -> impl Strategy<Value = Life> {
    let steps = prop::collection::vec(any_step(), 0..400);
    (2..8_usize, 1..5_usize, 0..5_u8, steps).prop_map(
        |(in_flight, rows_per_lane, faults_max, steps)| Life {
            in_flight,
            rows_per_lane,
            faults_max,
            steps,
        },
    )
}

fn live(life: &Life, bug: Bug) -> Result<(), TestCaseError> {
    use Fault::{
        AnswerLost, GiveBack, Kill, LoseLease, Pause, Refuse, Reject, Resize, RestartIds, Retire,
        TopicMissing,
    };
    let scenario = Scenario {
        processes: PROCESSES,
        keys: KEYS,
        script: &[],
        written_at_start: 0,
        in_flight: life.in_flight,
        rows_per_lane: life.rows_per_lane,
        deletions_max: 2,
        fine: true,
        restarts: true,
        faults: &[
            Kill,
            Pause,
            LoseLease,
            Refuse,
            Reject,
            Retire,
            AnswerLost,
            GiveBack,
            Resize,
            TopicMissing,
            RestartIds,
        ],
        faults_max: life.faults_max,
        bug,
    };
    let mut world = World::new(scenario, Instant::now());
    let steps = life
        .steps
        .iter()
        .try_for_each(|step| world.apply(*step).map(drop));
    steps
        .and_then(|()| world.heal())
        .map_err(|(letter, what)| TestCaseError::fail(format!("contract {letter}: {what}")))
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn whatever_happens_the_contract_holds(life in any_life()) {
        live(&life, Bug::None)?;
    }
}

/// A fixed seed: each run tests the same lives, so that a failure can be repeated.
#[test]
fn random_lives_find_planted_bugs_and_are_made_short() {
    for bug in [
        Bug::AckBeforeReport,
        Bug::NoInFlightCheck,
        Bug::ForgetAtOnce,
        Bug::ForwardOnly,
        Bug::NoFirstRecordGate,
        Bug::MoveWithRecordsOut,
    ] {
        let result = TestRunner::new_with_rng(
            config(2000),
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        )
        .run(&any_life(), |life| live(&life, bug));
        let Err(TestError::Fail(why, life)) = result else {
            panic!("{bug:?} survived: {result:?}")
        };
        eprintln!("{bug:?}: {why}: {life:?}");
        assert!(
            life.steps.len() < 25,
            "{bug:?} is found by a life of {} steps, which is hard to read: {life:?}",
            life.steps.len()
        );
    }
}
