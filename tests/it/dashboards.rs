//! The dashboards of the chart. The files in the chart are generated from here:
//! `UPDATE_GENERATED=1 cargo test generated`.

mod grafana;
mod on_call;
mod one_relay;
mod operator;

use serde_json::Value;

use crate::generated_files::compare;

pub(crate) use grafana::RATE_INTERVAL;

/// All dashboards: file names without `.json`, and contents.
pub(crate) fn all() -> [(&'static str, Value); 3] {
    [
        ("on-call", on_call::dashboard()),
        ("relay", one_relay::dashboard()),
        ("operator", operator::dashboard()),
    ]
}

/// The expressions of all panels and variables, with the names of their owners.
pub(crate) fn expressions() -> Vec<(String, String)> {
    all()
        .iter()
        .flat_map(|(file, dashboard)| grafana::expressions(file, dashboard))
        .collect()
}

#[test]
fn generated_dashboards_are_what_the_chart_has() {
    for (file, dashboard) in all() {
        let text = serde_json::to_string_pretty(&dashboard).expect("JSON") + "\n";
        compare(
            &format!("charts/outbox-operator/dashboards/{file}.json"),
            &text,
        );
    }
}

#[test]
fn every_panel_has_a_description_and_queries_the_chosen_prometheus() {
    for (file, dashboard) in all() {
        for panel in dashboard["panels"]
            .as_array()
            .expect("panels")
            .iter()
            .filter(|panel| panel["type"] != "row")
        {
            assert!(
                panel["description"]
                    .as_str()
                    .is_some_and(|text| text.ends_with('.')),
                "{file}: {panel}"
            );
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{file}: {panel}"
            );
            assert!(panel.get("libraryPanel").is_none(), "{file}: {panel}");
        }
    }
}
