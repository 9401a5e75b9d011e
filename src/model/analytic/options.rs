//! What `--model analytic:…` can ask for.
//!
//! In: the text after the name. Out: delay, fake devices and scale. None of it is weights: only the scale is part of a
//! run's identity, as that of any model.

use std::time::Duration;

use crate::model::error::ModelError;

/// How the analytic model behaves beside its rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Longer that each patch takes on a CPU.
    pub delay: Duration,
    /// Where the rule runs on devices of a set rate instead of the CPU.
    pub device: Option<DeviceOptions>,
    /// The rule at 0.25 µm/px, on means of 2 x 2 px: as many pixels and as large nuclei as a network at 40x has.
    pub fine: bool,
}

/// Devices that take a set time.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceOptions {
    /// Input pixels that one device handles per second, millions.
    pub mpx_per_s: f64,
    pub latency: Duration,
    /// Number of devices, at least 1.
    pub count: usize,
}

impl Options {
    /// The rule as fast as it is, on the CPU.
    pub const PLAIN: Options = Options {
        delay: Duration::ZERO,
        device: None,
        fine: false,
    };

    /// Reads `20` or `20ms` (a delay per patch) and `50Mpx/s` (a fake device; then `20ms` is its latency),
    /// `2devices`, `fine`, separated by commas.
    ///
    /// # Errors
    /// [`ModelError::Input`] with an example; `name`: the whole, for the message.
    pub fn parse(text: &str, name: &str) -> Result<Self, ModelError> {
        let wrong = || {
            ModelError::input(format!(
                "model '{name}': after 'analytic:' comes a whole number of ms a patch, as in analytic:20, or a fake \
                 device, as in analytic:50Mpx/s,10ms,2devices,fine"
            ))
        };
        let (mut time, mut rate, mut count, mut fine) = (None, None, None, false);
        for part in text.split(',') {
            let fresh = if let Some(number) = part.strip_suffix("Mpx/s") {
                rate.replace(positive(number).ok_or_else(wrong)?).is_none()
            } else if let Some(number) = part.strip_suffix("devices") {
                let number: usize = number.parse().map_err(|_| wrong())?;
                count.replace(number).is_none() && (1..=64).contains(&number)
            } else if part == "fine" {
                !std::mem::replace(&mut fine, true)
            } else {
                let number = part.strip_suffix("ms").unwrap_or(part);
                let ms: u64 = number.parse().map_err(|_| wrong())?;
                time.replace(Duration::from_millis(ms)).is_none()
            };
            if !fresh {
                return Err(wrong());
            }
        }
        let time = time.unwrap_or_default();
        match (rate, count) {
            (Some(mpx_per_s), count) => Ok(Options {
                delay: Duration::ZERO,
                device: Some(DeviceOptions {
                    mpx_per_s,
                    latency: time,
                    count: count.unwrap_or(1),
                }),
                fine,
            }),
            (None, None) => Ok(Options {
                delay: time,
                device: None,
                fine,
            }),
            (None, Some(_)) => Err(wrong()),
        }
    }
}

fn positive(number: &str) -> Option<f64> {
    let number: f64 = number.parse().ok()?;
    (number > 0.0 && number.is_finite()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_and_devices_are_read() {
        let read = |text| Options::parse(text, text).unwrap();
        assert_eq!(read("20").delay, Duration::from_millis(20));
        assert_eq!(read("0"), Options::PLAIN);
        let device = |text| read(text).device.unwrap();
        assert_eq!(
            device("50Mpx/s,10ms,2devices"),
            DeviceOptions {
                mpx_per_s: 50.0,
                latency: Duration::from_millis(10),
                count: 2,
            }
        );
        assert!(read("fine,1.5Mpx/s").fine && read("fine").fine && !read("7").fine);
        assert_eq!(device("1.5Mpx/s").count, 1);
    }

    #[test]
    fn other_text_is_refused_with_an_example() {
        for text in [
            "",
            "x",
            "-1",
            "20,30",
            "0Mpx/s",
            "infMpx/s",
            "2devices",
            "5Mpx/s,0devices",
            "5Mpx/s,",
            "5Mpx/s,5Mpx/s",
            "fine,fine",
            "nanMpx/s",
        ] {
            let message = Options::parse(text, text).unwrap_err().to_string();
            assert!(message.contains("50Mpx/s,10ms"), "{text}: {message}");
        }
    }
}
