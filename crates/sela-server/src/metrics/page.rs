//! A page of figures that are asked for when somebody reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// One metric: its name, what it means, its series.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: Vec<(Labels, Value)>,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Info,
    Buckets {
        sum: f64,
        count: u64,
        /// Upper bounds, and how many values each bucket alone has.
        buckets: Vec<(f64, u64)>,
    },
}

/// A page that is being filled.
#[derive(Debug, Default)]
pub(super) struct Page(Vec<Metric>);

/// A page that can be written.
#[derive(Debug)]
pub(super) struct Told(Vec<Metric>);

impl From<Page> for Told {
    fn from(page: Page) -> Self {
        Self(page.0)
    }
}

impl Page {
    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        series: Vec<(Labels, Value)>,
    ) {
        self.0.push(Metric {
            name,
            help,
            kind,
            series,
        });
    }

    /// What only grows. The name ends in `_total` where it is read.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.counters(name, help, [(Vec::new(), value)]);
    }

    /// The same with labels.
    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.add(name, help, MetricType::Counter, numbers(series));
    }

    /// What rises and falls.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, [(Vec::new(), value)]);
    }

    /// The same with labels.
    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.add(name, help, MetricType::Gauge, numbers(series));
    }

    /// Words. The name ends in `_info` where it is read.
    pub(super) fn info(&mut self, name: &'static str, help: &'static str, words: Labels) {
        let series = vec![(words, Value::Info)];
        self.add(name, help, MetricType::Info, series);
    }

    /// Sizes by their buckets.
    pub(super) fn histograms<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, &'a sela::Sizes)>,
    ) {
        let series = series
            .into_iter()
            .map(|(labels, sizes)| (labels, buckets(sizes)));
        self.add(name, help, MetricType::Histogram, series.collect());
    }
}

fn numbers(series: impl IntoIterator<Item = (Labels, f64)>) -> Vec<(Labels, Value)> {
    let series = series.into_iter();
    series.map(|(l, v)| (l, Value::Number(v))).collect()
}

/// The engine tells buckets up to the largest size there was; a series must not gain any between
/// two readings, so all that a batch can reach are told.
fn buckets(sizes: &sela::Sizes) -> Value {
    let mut before = 0;
    let mut buckets = Vec::with_capacity(BUCKET_BITS_MAX as usize + 1);
    for bound in (1..=BUCKET_BITS_MAX).map(|bits| (1u64 << bits) - 1) {
        let told = sizes.at_most.iter().find(|(at, _)| *at == bound);
        let upto = told.map_or(
            if sizes.max <= bound {
                sizes.count
            } else {
                before
            },
            |t| t.1,
        );
        buckets.push((bound as f64, upto.saturating_sub(before)));
        before = upto.max(before);
    }
    buckets.push((f64::MAX, sizes.count.saturating_sub(before)));
    Value::Buckets {
        sum: sizes.sum as f64,
        count: sizes.count,
        buckets,
    }
}

/// The last bucket's bound is this power of two, less one.
const BUCKET_BITS_MAX: u32 = 16;

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let mut to = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
            for (labels, value) in &metric.series {
                match value {
                    Value::Info => to.encode_info(labels)?,
                    _ if labels.is_empty() => value.write(metric.kind, &mut to)?,
                    _ => value.write(metric.kind, &mut to.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn write(&self, kind: MetricType, to: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match (self, kind) {
            (Self::Number(value), MetricType::Counter) => {
                to.encode_counter::<NoLabelSet, _, f64>(value, None)
            }
            (Self::Number(value), _) => to.encode_gauge(value),
            (
                Self::Buckets {
                    sum,
                    count,
                    buckets,
                },
                _,
            ) => to.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None),
            (Self::Info, _) => Ok(()),
        }
    }
}
