//! Which row a task is to begin with, by the variables that schedulers set.
//!
//! In: the environment. Out: an *absolute* row, so that a rerun of `--array=3,7` does rows 3 and 7. Never computes a
//! share from an array's MIN or COUNT: a rerun has others.

use super::CohortError;

/// What the scheduler says about this task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// The row to begin with, counted from 0.
    pub row: usize,
    /// The variable that says so.
    pub variable: &'static str,
    /// A rank of an MPI or srun step. There may be more ranks than rows; an array has an element a row.
    pub is_rank: bool,
}

/// A variable that holds an index.
struct Variable {
    name: &'static str,
    /// The index of row 0.
    base: usize,
    /// What says "this is no array".
    none: &'static str,
    is_rank: bool,
    /// A variable that must be there, too.
    beside: Option<&'static str>,
}

const fn array(name: &'static str, base: usize, none: &'static str) -> Variable {
    Variable {
        name,
        base,
        none,
        is_rank: false,
        beside: None,
    }
}

const fn rank(name: &'static str, beside: Option<&'static str>) -> Variable {
    Variable {
        name,
        base: 0,
        none: "",
        is_rank: true,
        beside,
    }
}

/// Arrays before ranks: an srun step of an array's element has both. Within an array each row is named by the index
/// itself. LSF and SGE cannot count from 0, so there index 1 is row 0.
const VARIABLES: [Variable; 12] = [
    array("SLURM_ARRAY_TASK_ID", 0, ""),
    array("PBS_ARRAY_INDEX", 0, ""),
    array("PBS_ARRAYID", 0, ""),
    array("LSB_JOBINDEX", 1, "0"),
    array("SGE_TASK_ID", 1, "undefined"),
    array("AWS_BATCH_JOB_ARRAY_INDEX", 0, ""),
    array("BATCH_TASK_INDEX", 0, ""),
    array("JOB_COMPLETION_INDEX", 0, ""),
    array("PJM_BULKNUM", 0, ""),
    // The batch shell has a SLURM_PROCID of 0 as well; only within a step it tells tasks apart.
    rank("SLURM_PROCID", Some("SLURM_STEP_ID")),
    rank("OMPI_COMM_WORLD_RANK", None),
    rank("PMI_RANK", None),
];

/// The index of this task; `None`: no scheduler gave it one.
///
/// # Errors
/// A variable whose text is no index.
pub fn from_environment(
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<Index>, CohortError> {
    for variable in &VARIABLES {
        let Some(text) = lookup(variable.name) else {
            continue;
        };
        let text = text.trim();
        let missing = variable
            .beside
            .is_some_and(|name| lookup(name).is_none_or(|value| value.trim().is_empty()));
        if text.is_empty() || text == variable.none || missing {
            continue;
        }
        let index = text.parse::<usize>().ok();
        let Some(row) = index.and_then(|index| index.checked_sub(variable.base)) else {
            return Err(CohortError::Usage(format!(
                "{}={text} is no index of an array: unset it, or say --row N",
                variable.name
            )));
        };
        return Ok(Some(Index {
            row,
            variable: variable.name,
            is_rank: variable.is_rank,
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Result<Option<Index>, CohortError> {
        from_environment(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn row(variables: &[(&str, &str)]) -> Option<usize> {
        found(variables).unwrap().map(|index| index.row)
    }

    #[test]
    fn every_scheduler_says_its_row() {
        for (name, text, expected) in [
            ("SLURM_ARRAY_TASK_ID", "7", 7),
            ("PBS_ARRAY_INDEX", "7", 7),
            ("PBS_ARRAYID", "0", 0),
            ("LSB_JOBINDEX", "1", 0),
            ("LSB_JOBINDEX", "8", 7),
            ("SGE_TASK_ID", "1", 0),
            ("SGE_TASK_ID", "8", 7),
            ("AWS_BATCH_JOB_ARRAY_INDEX", "7", 7),
            ("BATCH_TASK_INDEX", "7", 7),
            ("JOB_COMPLETION_INDEX", "7", 7),
            ("PJM_BULKNUM", "7", 7),
            ("OMPI_COMM_WORLD_RANK", "7", 7),
            ("PMI_RANK", "7", 7),
        ] {
            assert_eq!(row(&[(name, text)]), Some(expected), "{name}={text}");
        }
    }

    #[test]
    fn what_says_no_array_is_none() {
        for (name, text) in [
            ("LSB_JOBINDEX", "0"),
            ("SGE_TASK_ID", "undefined"),
            ("PBS_ARRAY_INDEX", ""),
            ("SLURM_PROCID", "3"),
        ] {
            assert_eq!(row(&[(name, text)]), None, "{name}={text}");
        }
        assert_eq!(row(&[]), None);
    }

    /// `--array=3,7` has MIN 3, MAX 7 and COUNT 2, and the second of its tasks does row 7.
    #[test]
    fn a_rerun_of_some_elements_does_those_rows() {
        let array = [
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "3"),
            ("SLURM_ARRAY_TASK_MAX", "7"),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
            ("SLURM_ARRAY_TASK_STEP", "4"),
        ];
        assert_eq!(row(&array), Some(7));
        let lsf = [("LSB_JOBINDEX", "40"), ("LSB_JOBINDEX_END", "44")];
        assert_eq!(row(&lsf), Some(39));
    }

    #[test]
    fn an_array_counts_before_a_rank_of_its_steps() {
        let both = [
            ("SLURM_ARRAY_TASK_ID", "5"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "1"),
        ];
        assert_eq!(row(&both), Some(5));
        let step = found(&both[1..]).unwrap().unwrap();
        assert_eq!((step.row, step.is_rank), (1, true));
    }

    #[test]
    fn text_that_is_no_index_is_told_with_its_variable() {
        for (name, text) in [
            ("SLURM_ARRAY_TASK_ID", "4294967294x"),
            ("SGE_TASK_ID", "0"),
            ("JOB_COMPLETION_INDEX", "-1"),
        ] {
            let error = found(&[(name, text)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("--row"), "{error}");
        }
    }
}
