//! `[types_from]` of a model.toml: a second network that types nuclei together with the first.
//!
//! In: what model.toml says. Out: a [`TypesFrom`] in range, and the file that it names. Never runs a
//! network: [`joined`](super::joined) does.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::spec::Architecture;
use crate::digest::sha256_hex;

/// The second network. It sees the same patches at the same scale and has the model's types in the
/// model's order; of its maps only the types count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypesFrom {
    /// Name of the model that the network was taken from.
    pub model: String,
    /// Which of our own networks it is.
    pub architecture: Architecture,
    /// File name of its weights, beside model.toml.
    pub weights: String,
    /// SHA-256 of that file, hex.
    pub sha256: String,
    /// Weight of its probabilities in the mean, above 0 and at most 1; the model's own have the rest.
    pub share: f64,
    /// Divisor of the logarithms of the mean: above 1, probabilities are less certain.
    #[serde(default = "no_change")]
    pub temperature: f64,
}

const fn no_change() -> f64 {
    1.0
}

/// A second network with the bytes of its weights file, as one model folder hands it to another.
#[derive(Clone)]
pub struct TypesFile {
    pub said: TypesFrom,
    pub bytes: Vec<u8>,
}

/// Without the weights themselves, which nobody could read.
impl std::fmt::Debug for TypesFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.said.fmt(out)
    }
}

impl TypesFrom {
    /// The first entry that cannot be right for a model of `architecture` with `types` types
    /// (background included) and the weights file `weights`, and why.
    pub(super) fn complaint(
        &self,
        architecture: Architecture,
        types: usize,
        weights: Option<&str>,
    ) -> Option<(&'static str, String)> {
        let own =
            |a: Architecture| matches!(a, Architecture::HovernetLite | Architecture::HovernetWide);
        if !own(self.architecture) || !own(architecture) {
            return Some((
                "types_from.architecture",
                format!(
                    "is {} beside {}: hovernet-lite and hovernet-wide can share their types",
                    self.architecture.name(),
                    architecture.name()
                ),
            ));
        }
        if types == 0 {
            return Some(("types_from", "stands in a model without [[types]]".into()));
        }
        let mut parts = Path::new(&self.weights).components();
        let is_file_name = matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        );
        if !is_file_name || weights == Some(self.weights.as_str()) {
            return Some((
                "types_from.weights",
                format!(
                    "is '{}', must be the name of another file beside model.toml",
                    self.weights
                ),
            ));
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Some((
                "types_from.sha256",
                format!(
                    "is '{}', must be 64 hex digits (sha256sum {})",
                    self.sha256, self.weights
                ),
            ));
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Some((
                "types_from.share",
                format!("is {}, must be above 0 and at most 1", self.share),
            ));
        }
        if !(0.01..=100.0).contains(&self.temperature) {
            return Some((
                "types_from.temperature",
                format!("is {}, must be 0.01 to 100", self.temperature),
            ));
        }
        None
    }

    /// One hash of both networks and how they are joined, for the identity of a run: `sha256` is the
    /// first network's.
    pub fn joined_sha256(&self, sha256: &str) -> String {
        let name = self.architecture.name();
        let second = self.sha256.to_ascii_lowercase();
        let (share, temperature) = (self.share, self.temperature);
        sha256_hex(format!("{sha256} {name} {second} {share:?} {temperature:?}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> TypesFrom {
        TypesFrom {
            model: "m".into(),
            architecture: Architecture::HovernetLite,
            weights: "types.safetensors".into(),
            sha256: "0".repeat(64),
            share: 0.5,
            temperature: 1.0,
        }
    }

    fn complaint_of(edit: impl Fn(&mut TypesFrom)) -> Option<&'static str> {
        let mut from = said();
        edit(&mut from);
        let found = from.complaint(Architecture::HovernetWide, 5, Some("model.safetensors"));
        found.map(|(field, _)| field)
    }

    #[test]
    fn every_entry_is_checked() {
        assert_eq!(complaint_of(|_| ()), None);
        let field = |name: &'static str| Some(name);
        for share in [0.0, -0.5, 1.01, f64::NAN] {
            assert_eq!(
                complaint_of(|f| f.share = share),
                field("types_from.share"),
                "{share}"
            );
        }
        for weights in ["", "../x", "a/b", "/x", "model.safetensors"] {
            assert_eq!(
                complaint_of(|f| f.weights = weights.into()),
                field("types_from.weights"),
                "{weights}"
            );
        }
        assert_eq!(
            complaint_of(|f| f.sha256 = "xy".into()),
            field("types_from.sha256")
        );
        assert_eq!(
            complaint_of(|f| f.temperature = 0.0),
            field("types_from.temperature")
        );
        assert_eq!(
            complaint_of(|f| f.architecture = Architecture::HovernetFast),
            field("types_from.architecture")
        );
        let untyped = said().complaint(Architecture::HovernetWide, 0, None);
        assert_eq!(untyped.map(|c| c.0), field("types_from"));
        let script = said().complaint(Architecture::Torchscript, 5, None);
        assert_eq!(script.map(|c| c.0), field("types_from.architecture"));
    }

    #[test]
    fn the_hash_depends_on_both_networks_and_how_they_are_joined() {
        let of = |edit: fn(&mut TypesFrom)| {
            let mut from = said();
            edit(&mut from);
            from.joined_sha256("first")
        };
        let plain = of(|_| ());
        assert_eq!(plain.len(), 64);
        assert_eq!(plain, of(|f| f.model = "renamed".into()));
        assert_ne!(plain, said().joined_sha256("other"));
        assert_ne!(plain, of(|f| f.sha256 = "1".repeat(64)));
        assert_ne!(plain, of(|f| f.share = 0.75));
        assert_ne!(plain, of(|f| f.temperature = 1.1));
        assert_ne!(plain, of(|f| f.architecture = Architecture::HovernetWide));
    }
}
