//! The versions that runs read.

use serde::{Deserialize, Serialize};

use super::Run;

/// A version of a dataset that a run reads, whatever newer ones come meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputVersion {
    /// What it was called when the run was planned, `schema.table`; its location, where only a session knew it.
    pub dataset: String,
    /// Where it lies: a name may mean another table later.
    pub location: String,
    /// The version.
    pub version: u64,
}

impl Run {
    /// The versions of datasets that it reads, by name; none while it is not planned.
    #[must_use]
    pub fn inputs(&self) -> &[InputVersion] {
        self.sheet.as_ref().map(|sheet| sheet.inputs.as_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::graph::StageGraph;
    use crate::record::{Record, RunSpec, Sheet, State};
    use crate::{BlobHash, Millis, RunId};

    use super::*;

    /// As builds wrote it that named no inputs.
    const OLD: &str =
        r#"{"RunPlanned":{"run":"r","graph":{"stages":[]},"sheet":{"blob":"a","session":"b","effects":true}}}"#;

    fn planned(inputs: Vec<InputVersion>) -> Record {
        let sheet = Sheet { blob: BlobHash("a".to_owned()), session: BlobHash("b".to_owned()), effects: true, inputs };
        Record::RunPlanned { run: RunId("r".to_owned()), graph: StageGraph { stages: Vec::new() }, sheet: Some(sheet) }
    }

    #[test]
    fn a_plan_of_an_older_build_is_read_and_one_without_inputs_is_written_as_before() {
        assert_eq!(serde_json::from_str::<Record>(OLD).unwrap(), planned(Vec::new()));
        assert_eq!(serde_json::to_string(&planned(Vec::new())).unwrap(), OLD);
    }

    #[test]
    fn what_a_run_reads_is_what_the_record_of_its_plan_says() {
        let clicks =
            InputVersion { dataset: "public.clicks".to_owned(), location: "s3://lake/clicks/".to_owned(), version: 12 };
        let spec = RunSpec { statement: "SELECT 1".to_owned(), ..RunSpec::default() };
        let run = RunId("r".to_owned());
        let mut state = State::default();
        state.apply(&Record::RunAccepted { run: run.clone(), spec, at: Millis(1) });
        assert!(state.runs[&run].inputs().is_empty());
        let written = serde_json::to_string(&planned(vec![clicks.clone()])).unwrap();
        state.apply(&serde_json::from_str(&written).unwrap());
        assert_eq!(state.runs[&run].inputs(), [clicks]);
        // Planned again by another build, it may read newer ones.
        state.apply(&Record::RunRestarted { run: run.clone() });
        assert!(state.runs[&run].inputs().is_empty());
    }
}
