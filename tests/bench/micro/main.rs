//! Measures the cost of the relay's own code for a row, without servers: `make bench-micro`.
//! criterion compares each figure with the last run.

mod clock;
mod table;
mod turns;

use std::{hint::black_box, time::Duration};

use clock::CpuTime;
use cpu_time::ThreadTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use outbox_relay::{
    kafka::{headers, partition_of},
    outbox::OutboxRow,
    relay::Metrics,
    settings::RecordHeaders,
};
use table::{TOPIC, row};
use turns::{ROWS, Relay, SOURCE, Step};

/// Number of rows. They are more than the first cache of the CPU holds.
const ROW_COUNT: i64 = 4096;

fn rows() -> Vec<OutboxRow> {
    (0..ROW_COUNT).map(row).collect()
}

/// Measures the headers of a record.
fn encoding(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("headers");
    group.throughput(Throughput::Elements(ROW_COUNT as u64));
    let rows = rows();
    for style in [
        RecordHeaders::Standard,
        RecordHeaders::Debezium,
        RecordHeaders::CloudEvents,
    ] {
        group.bench_function(format!("{style:?}"), |bencher| {
            let mut replaced = 0;
            bencher.iter(|| {
                rows.iter()
                    .for_each(|row| drop(black_box(headers(row, style, SOURCE, &mut replaced))))
            });
        });
    }
}

/// Measures the partition of a key.
fn partitioning(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("partition_of");
    group.throughput(Throughput::Elements(ROW_COUNT as u64));
    let rows = rows();
    group.bench_function("12", |bencher| {
        bencher.iter(|| {
            rows.iter()
                .map(|row| partition_of(row.key().as_bytes(), black_box(12)))
                .sum::<usize>()
        });
    });
}

/// Measures the metrics of a published row.
fn counting(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Elements(1));
    let metrics = Metrics::new(&[TOPIC.to_owned()]);
    group.bench_function("published", |bencher| {
        bencher.iter(|| {
            metrics.publish_latency.observe(black_box(0.012));
            metrics
                .published
                .with_label_values(&[black_box(TOPIC)])
                .inc();
            metrics.processing.observe(black_box(0.009));
        });
    });
}

/// Measures one turn: of 16,384 rows in flight, half are reported, settled, and fetched again.
fn turning(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(ROWS as u64));
    for step in Step::ALL {
        time(&mut group, &format!("{step:?}"), |other| other == step);
    }
    time(&mut group, "all", |_| true);
}

fn time(group: &mut BenchmarkGroup<'_, CpuTime>, name: &str, counts: impl Fn(Step) -> bool) {
    let mut relay = Relay::under_load();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|turns| {
            let mut total = Duration::ZERO;
            for _ in 0..turns {
                relay.turn(|step, work| {
                    let began = ThreadTime::now();
                    work();
                    total += if counts(step) {
                        began.elapsed()
                    } else {
                        Duration::ZERO
                    };
                });
            }
            total
        });
    });
}

criterion_group! {
    name = micro;
    config = Criterion::default().with_measurement(CpuTime);
    targets = encoding, partitioning, counting, turning
}
criterion_main!(micro);
