//! The results of all measurements, and their medians. Pure.

use std::fmt;

use serde_json::{Map, Value, json};

/// Measurements with their results, in the order of the first results.
#[derive(Default)]
pub(crate) struct Results(Vec<(String, Vec<Value>)>);

impl Results {
    pub(crate) fn add(&mut self, name: String, result: Value) {
        match self.0.iter_mut().find(|(existing, _)| *existing == name) {
            Some((_, results)) => results.push(result),
            None => self.0.push((name, vec![result])),
        }
    }

    /// The medians of one figure of all measurements whose names contain `part`.
    pub(crate) fn of(&self, part: &str, figure: &str) -> Vec<(String, f64)> {
        let named = self.0.iter().filter(|(name, _)| name.contains(part));
        named
            .filter_map(|(name, results)| {
                Some((name.clone(), medians(results).get(figure)?.as_f64()?))
            })
            .collect()
    }

    /// The median of one figure of a measurement, if it has results.
    pub(crate) fn median(&self, name: &str, figure: &str) -> Option<f64> {
        let (_, results) = self.0.iter().find(|(existing, _)| existing == name)?;
        medians(results).get(figure)?.as_f64()
    }

    pub(crate) fn json(&self) -> Value {
        let measurements = self.0.iter().map(
            |(name, results)| json!({ "name": name, "median": medians(results), "runs": results }),
        );
        measurements.collect()
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, results)| {
            writeln!(
                f,
                "{name:<44} {}",
                summary(&Value::Object(medians(results)))
            )
        })
    }
}

/// The median of each figure.
fn medians(results: &[Value]) -> Map<String, Value> {
    let figures = results
        .first()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(figure, _)| figure);
    let median = |figure: &String| {
        let mut values: Vec<f64> = results
            .iter()
            .filter_map(|result| result[figure].as_f64())
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    figures
        .map(|figure| (figure.clone(), json!(median(figure))))
        .collect()
}

/// Figures as one line of text.
pub(crate) fn summary(result: &Value) -> String {
    let pairs = result.as_object().into_iter().flatten();
    pairs
        .map(|(name, value)| format!("{name} {:.3}", value.as_f64().unwrap_or(f64::NAN)))
        .collect::<Vec<_>>()
        .join("   ")
}
