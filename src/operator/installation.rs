//! What one installation of the operator decides for all relays. Pure.

/// What an installation decides for all of its relays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// Image of relays and migrations.
    pub relay_image: String,
    /// Images that `template.image` may name; a `*` at the end matches any end.
    pub allowed_images: Vec<String>,
    /// First part of the owner of a schema. Empty: the uid of kube-system.
    pub cluster_name: String,
    /// Number of relays that get a new version at the same time.
    pub upgrades_max: usize,
    /// Namespace of the operator; absent if it runs outside of the cluster.
    pub namespace: Option<String>,
    /// Namespace of the Prometheus server that scrapes relays.
    pub monitoring_namespace: Option<String>,
    /// The installation has one PodMonitor for all relays, so no relay gets its own.
    pub relays_monitored: bool,
}

impl Installation {
    /// Returns whether `template.image` may be this image. The installation's own is always
    /// allowed.
    pub(crate) fn allows(&self, image: &str) -> bool {
        let mut allowed = self.allowed_images.iter();
        image == self.relay_image || allowed.any(|pattern| matches(pattern, image))
    }
}

/// Returns whether an image matches a pattern: a `*` at its end matches any end.
fn matches(pattern: &str, image: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => image.starts_with(start),
        None => image == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_allowed_by_its_name_or_by_the_start_of_it() {
        let allowed_images = vec![
            "registry.test/relay:1".to_owned(),
            "registry.test/canary/*".to_owned(),
        ];
        let installation = Installation {
            relay_image: "own:1".to_owned(),
            allowed_images,
            ..Installation::default()
        };
        for (image, allowed) in [
            ("own:1", true),
            ("own:2", false),
            ("registry.test/relay:1", true),
            ("registry.test/relay:10", false),
            ("registry.test/canary/relay:7", true),
            ("other.test/canary/relay:7", false),
        ] {
            assert_eq!(installation.allows(image), allowed, "{image}");
        }
    }
}
