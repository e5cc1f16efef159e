//! Makes Grafana's JSON of rows of panels, with positions on a grid of 24 columns. Pure.

use serde_json::{Value, json};

/// Grafana's variable for a time span with at least four scrapes.
pub(crate) const RATE_INTERVAL: &str = "$__rate_interval";

/// The kind of a panel.
#[derive(Clone, Copy)]
pub(super) enum Look {
    /// One number.
    Number,
    /// One number that is red from this threshold on.
    Bad(f64),
    Lines,
    Table,
}

/// A panel: title, Grafana's unit, description, expressions with the names of their series.
pub(super) struct Panel {
    pub title: &'static str,
    pub look: Look,
    pub unit: &'static str,
    pub description: &'static str,
    pub queries: &'static [(&'static str, &'static str)],
}

/// Panels side by side.
pub(super) struct Row {
    pub title: &'static str,
    pub height: u32,
    pub panels: &'static [Panel],
}

pub(super) struct Dashboard {
    pub uid: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    /// Names of variables, and the expressions `label_values(..)` that fill them.
    pub variables: &'static [(&'static str, &'static str)],
    pub rows: &'static [Row],
}

const COLUMNS: u32 = 24;

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Dashboard {
    pub(super) fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["outbox"],
            "schemaVersion": 39,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "links": [{"type": "dashboards", "title": "Outbox", "tags": ["outbox"],
                "asDropdown": true, "includeVars": true, "keepTime": true}],
            "templating": {"list": self.variables()},
            "panels": self.panels(),
        })
    }

    fn variables(&self) -> Vec<Value> {
        let source = json!({"name": "datasource", "label": "Data source", "type": "datasource",
            "query": "prometheus"});
        let variable = |(name, query): &(&str, &str)| {
            json!({
                "name": name,
                "type": "query",
                "datasource": datasource(),
                "query": {"query": query, "refId": name},
                "refresh": 2,
                "sort": 1,
                "multi": true,
                "includeAll": true,
                "current": {"text": "All", "value": "$__all"},
            })
        };
        std::iter::once(source)
            .chain(self.variables.iter().map(variable))
            .collect()
    }

    fn panels(&self) -> Vec<Value> {
        let (mut panels, mut y) = (Vec::new(), 0);
        for row in self.rows {
            let place = json!({"x": 0, "y": y, "w": COLUMNS, "h": 1});
            panels.push(
                json!({"id": panels.len() + 1, "type": "row", "title": row.title,
                    "collapsed": false, "gridPos": place, "panels": []}),
            );
            let width = COLUMNS / u32::try_from(row.panels.len()).expect("few");
            for (x, panel) in (0..).step_by(width as usize).zip(row.panels) {
                panels.push(panel.json(
                    panels.len() + 1,
                    &json!({"x": x, "y": y + 1, "w": width, "h": row.height}),
                ));
            }
            y += 1 + row.height;
        }
        panels
    }
}

impl Panel {
    fn json(&self, id: usize, place: &Value) -> Value {
        let (kind, defaults, options) = self.look.settings(self.unit);
        let mut panel = json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": place,
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options,
            "targets": self.targets(),
        });
        if matches!(self.look, Look::Table) {
            let hidden = json!({"Time": true, "__name__": true});
            let names: serde_json::Map<String, Value> = (self.queries.iter().zip('A'..))
                .map(|((_, name), letter)| {
                    (
                        if self.queries.len() == 1 {
                            "Value".to_owned()
                        } else {
                            format!("Value #{letter}")
                        },
                        json!(name),
                    )
                })
                .collect();
            let organize = json!({"id": "organize", "options": {"excludeByName": hidden,
                "renameByName": names}});
            panel["transformations"] = json!([{"id": "merge", "options": {}}, organize]);
        }
        panel
    }

    fn targets(&self) -> Vec<Value> {
        let table = matches!(self.look, Look::Table);
        let target = |((expr, legend), letter): (&(&str, &str), char)| {
            json!({
                "refId": letter.to_string(),
                "datasource": datasource(),
                "expr": expr,
                "legendFormat": legend,
                "instant": table,
                "range": !table,
                "format": if table { "table" } else { "time_series" },
            })
        };
        self.queries.iter().zip('A'..).map(target).collect()
    }
}

impl Look {
    /// Type, field defaults and options of a panel.
    fn settings(self, unit: &str) -> (&'static str, Value, Value) {
        let steps = |red: Option<f64>| {
            let mut steps =
                vec![json!({"color": if red.is_some() { "green" } else { "text" }, "value": null})];
            steps.extend(red.map(|from| json!({"color": "red", "value": from})));
            json!({"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}})
        };
        let number = json!({"reduceOptions": {"calcs": ["lastNotNull"]},
            "colorMode": "background_solid", "graphMode": "area"});
        let lines = json!({"legend": {"displayMode": "table", "placement": "bottom",
            "calcs": ["lastNotNull", "max"]}, "tooltip": {"mode": "multi", "sort": "desc"}});
        match self {
            Self::Number => (
                "stat",
                steps(None),
                json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none",
                    "graphMode": "area"}),
            ),
            Self::Bad(from) => ("stat", steps(Some(from)), number),
            Self::Lines => (
                "timeseries",
                json!({"unit": unit, "min": 0, "custom": {"fillOpacity": 10,
                    "showPoints": "never"}}),
                lines,
            ),
            Self::Table => ("table", json!({"unit": unit}), json!({"showHeader": true})),
        }
    }
}

pub(super) fn expressions(file: &str, dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let panels = dashboard["panels"]
        .as_array()
        .expect("panels")
        .iter()
        .filter(|panel| panel["type"] != "row");
    let of_panels = panels.flat_map(|panel| {
        let title = format!("{file}: {}", text(&panel["title"]));
        panel["targets"]
            .as_array()
            .expect("targets")
            .iter()
            .map(move |target| (title.clone(), text(&target["expr"])))
    });
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
        .iter()
        .filter(|variable| variable["type"] == "query");
    let of_variables = variables.map(|variable| {
        let query = text(&variable["query"]["query"]);
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'))
            .expect("label_values");
        let (metric, label) = inner.rsplit_once(", ").expect("a metric and a label");
        (
            format!("{file}: variable {}", text(&variable["name"])),
            format!("count by ({label}) ({metric})"),
        )
    });
    of_panels.chain(of_variables).collect()
}
