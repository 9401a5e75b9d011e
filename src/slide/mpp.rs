//! How many µm a level-0 pixel measures.
//!
//! In: what the file says and what the user says. Out: [`Mpp`] with where it came from. Never
//! trusts a number that no microscope has, and never guesses: without any it is an error that names
//! `--mpp`.

use serde::Serialize;

use super::{Resolution, SlideError, SlideInfo, resolution_of};

/// µm/px that light microscopes give; a file's other values are errors of units.
const LIGHT_MICROSCOPE_UM_PER_PX: std::ops::RangeInclusive<f64> = 0.05..=20.0;
/// Smallest and largest µm/px that are believed of a user.
const SANE_UM_PER_PX: std::ops::RangeInclusive<f64> = 0.01..=1000.0;
/// Objective powers that are believed.
const SANE_POWER: std::ops::RangeInclusive<f64> = 0.5..=400.0;
/// µm/px x power: a 40x objective gives 0.25 µm/px.
const UM_PER_PX_AT_1X: f64 = 10.0;

/// Reads µm/px as users write it: a number from 0.01 to 100.
///
/// # Errors
/// What would do instead.
pub fn parse(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(mpp) if (0.01..=100.0).contains(&mpp) => Ok(mpp),
        Ok(_) => Err("must lie between 0.01 and 100 µm a pixel".into()),
        Err(reason) => Err(reason.to_string()),
    }
}

/// The slide's scale.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mpp {
    /// µm per level-0 px, x and y.
    pub mpp: [f64; 2],
    /// `flag`, `file` or `objective`.
    pub from: &'static str,
    /// What the user should know about it and about how the file is read.
    pub warning: Option<String>,
}

/// Settles the µm/px: the flag comes before the file, and the file before the objective power.
///
/// # Errors
/// [`SlideError::Invalid`] for a flag that cannot be a µm/px, [`SlideError::NoMpp`] where neither
/// the flag nor the file gives one.
pub fn resolve_mpp(info: &SlideInfo, over: Option<f64>) -> Result<Mpp, SlideError> {
    if let Some(flag) = over {
        if !SANE_UM_PER_PX.contains(&flag) {
            let reason =
                format!("--mpp {flag} is no µm/px: give one from 0.01 to 1000 (0.25 for 40x)");
            return Err(SlideError::invalid(&info.path, reason));
        }
        return Ok(Mpp {
            mpp: [flag; 2],
            from: "flag",
            warning: join(info.notes.clone()),
        });
    }
    let resolution = resolution_of(&info.vendor);
    let (from_file, mut warnings) = file_mpp(info, resolution);
    warnings.extend(info.notes.iter().cloned());
    if let Some(mpp) = from_file {
        return Ok(Mpp {
            mpp,
            from: "file",
            warning: join(warnings),
        });
    }
    let power = info
        .objective_power
        .filter(|power| SANE_POWER.contains(power));
    let Some(power) = power.filter(|_| resolution != Resolution::Printer) else {
        return Err(no_mpp(info, resolution));
    };
    let mpp = UM_PER_PX_AT_1X / power;
    warnings.push(format!(
        "the file gives no usable µm/px; {mpp} is taken from its objective power ({power}x): give --mpp if that \
            is wrong"
    ));
    Ok(Mpp {
        mpp: [mpp; 2],
        from: "objective",
        warning: join(warnings),
    })
}

/// Why there is no scale: the file states none, or one that no light microscope gives.
fn no_mpp(info: &SlideInfo, resolution: Resolution) -> SlideError {
    let stated = match resolution {
        Resolution::Printer => None,
        _ => info.mpp,
    };
    let stated = stated.or(info.physical_mpp);
    // A printer's resolution is no error.
    let is_printers =
        |um: f64| matches!(resolution, Resolution::MicroscopeUpTo(up_to) if um > up_to);
    match stated {
        Some([x, y]) if x.is_finite() && y.is_finite() && !is_printers(x) => SlideError::invalid(
            &info.path,
            format!(
                "the file says {x} x {y} µm/px, but light microscopes give {} to {}: give the right value with --mpp \
                 (0.25 for a 40x scan, 0.5 for 20x)",
                LIGHT_MICROSCOPE_UM_PER_PX.start(),
                LIGHT_MICROSCOPE_UM_PER_PX.end()
            ),
        ),
        _ => SlideError::NoMpp {
            path: info.path.clone(),
        },
    }
}

fn join(warnings: Vec<String>) -> Option<String> {
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

/// The file's µm/px if it can be believed, and warnings about it.
fn file_mpp(info: &SlideInfo, resolution: Resolution) -> (Option<[f64; 2]>, Vec<String>) {
    let coarsest = match resolution {
        Resolution::Microscope => f64::INFINITY,
        Resolution::MicroscopeUpTo(um_per_px) => um_per_px,
        Resolution::Printer => return (physical_mpp(info), Vec::new()),
    };
    let stated = |axis: usize, name: &str| {
        info.mpp
            .and_then(|mpp| mpp.get(axis).copied())
            .map(|v| v.to_string())
            .or_else(|| info.properties.get(name).cloned())
    };
    let stated = [stated(0, "openslide.mpp-x"), stated(1, "openslide.mpp-y")];
    let believed = stated.clone().map(|text| {
        let value = text?.trim().parse::<f64>().ok()?;
        (LIGHT_MICROSCOPE_UM_PER_PX.contains(&value) && value <= coarsest).then_some(value)
    });
    let mut warnings = Vec::new();
    for (axis, (text, value)) in ["x", "y"].iter().zip(stated.iter().zip(&believed)) {
        if let (Some(text), None) = (text, value) {
            warnings.push(format!(
                "the file's µm/px in {axis} ({text}) is no microscope's and is ignored"
            ));
        }
    }
    let mpp = match believed {
        [Some(x), Some(y)] => Some([x, y]),
        [Some(one), None] | [None, Some(one)] => {
            warnings.push(format!("{one} µm/px of the other axis is used for both"));
            Some([one; 2])
        }
        [None, None] => physical_mpp(info),
    };
    (mpp, warnings)
}

/// OME-XML's µm/px if they can be believed.
fn physical_mpp(info: &SlideInfo) -> Option<[f64; 2]> {
    let believed = |mpp: &[f64; 2]| mpp.iter().all(|v| LIGHT_MICROSCOPE_UM_PER_PX.contains(v));
    info.physical_mpp.filter(believed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slide::testing::slide_info;

    fn info(mpp: Option<[f64; 2]>, power: Option<f64>) -> SlideInfo {
        SlideInfo {
            mpp,
            objective_power: power,
            ..slide_info(&[[100, 100]])
        }
    }

    #[test]
    fn flag_over_file_over_objective_over_nothing() {
        let all = info(Some([0.5, 0.51]), Some(40.0));
        let flag = resolve_mpp(&all, Some(0.3)).unwrap();
        assert_eq!((flag.mpp, flag.from), ([0.3, 0.3], "flag"));
        let file = resolve_mpp(&all, None).unwrap();
        assert_eq!(
            (file.mpp, file.from, file.warning),
            ([0.5, 0.51], "file", None)
        );
        let objective = resolve_mpp(&info(None, Some(40.0)), None).unwrap();
        assert_eq!((objective.mpp, objective.from), ([0.25, 0.25], "objective"));
        assert!(objective.warning.unwrap().contains("40x"));
        let none = resolve_mpp(&info(None, None), None).unwrap_err();
        assert!(matches!(none, SlideError::NoMpp { .. }));
        assert!(none.to_string().contains("--mpp"));
    }

    #[test]
    fn absurd_values_count_as_absent_and_are_named() {
        for bad in [0.0, -0.25, f64::NAN, 1e9, 0.001] {
            let got = resolve_mpp(&info(Some([bad, bad]), Some(20.0)), None).unwrap();
            assert_eq!((got.mpp, got.from), ([0.5, 0.5], "objective"));
            let warning = got.warning.unwrap();
            assert!(warning.contains(&format!("({bad})")), "{warning}");
            assert!(resolve_mpp(&info(Some([bad, bad]), None), None).is_err());
            assert!(resolve_mpp(&info(None, None), Some(bad)).is_err());
        }
        assert!(resolve_mpp(&info(None, Some(0.0)), None).is_err());
        let text = SlideInfo {
            properties: [("openslide.mpp-x".to_owned(), "n/a".to_owned())].into(),
            ..info(None, Some(10.0))
        };
        assert!(
            resolve_mpp(&text, None)
                .unwrap()
                .warning
                .unwrap()
                .contains("n/a")
        );
    }

    #[test]
    fn an_error_of_units_is_refused_and_ome_xml_counts_without_another_scale() {
        for bad in [0.025, 0.049, 20.1, 500.0] {
            let error = resolve_mpp(&info(Some([bad; 2]), None), None)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("--mpp") && error.contains(&bad.to_string()),
                "{error}"
            );
            assert_eq!(
                resolve_mpp(&info(Some([bad; 2]), None), Some(0.25))
                    .unwrap()
                    .from,
                "flag"
            );
        }
        let ome = |mpp, physical_mpp| SlideInfo {
            physical_mpp,
            ..info(mpp, None)
        };
        let got = |mpp, physical| resolve_mpp(&ome(mpp, physical), None).map(|m| (m.mpp, m.from));
        assert_eq!(got(None, Some([0.25, 0.5])), Ok(([0.25, 0.5], "file")));
        assert_eq!(got(Some([0.3; 2]), Some([0.25; 2])), Ok(([0.3; 2], "file")));
        assert!(got(None, Some([0.00025; 2])).is_err());
        let plain = SlideInfo {
            vendor: "image".to_owned(),
            ..ome(None, Some([0.25; 2]))
        };
        assert_eq!(resolve_mpp(&plain, None).unwrap().mpp, [0.25; 2]);
    }

    #[test]
    fn one_good_axis_serves_both() {
        let got = resolve_mpp(&info(Some([0.25, 0.0]), None), None).unwrap();
        assert_eq!((got.mpp, got.from), ([0.25, 0.25], "file"));
        assert!(got.warning.unwrap().contains("both"));
    }

    #[test]
    #[cfg(feature = "openslide")]
    fn a_printers_resolution_is_no_scale() {
        let tiff = SlideInfo {
            vendor: "generic-tiff".to_owned(),
            ..info(Some([352.78, 352.78]), None)
        };
        assert!(matches!(
            resolve_mpp(&tiff, None),
            Err(SlideError::NoMpp { .. })
        ));
        let plain = SlideInfo {
            vendor: "image".to_owned(),
            ..info(Some([0.25, 0.25]), Some(40.0))
        };
        assert!(resolve_mpp(&plain, None).is_err());
        assert_eq!(resolve_mpp(&plain, Some(0.25)).unwrap().from, "flag");
    }
}
