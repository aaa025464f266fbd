//! Which outputs a request wants, and as what.

use serde::Serialize;
use std::collections::HashSet;

use super::classification::{self, classifiable, classify};
use super::images::Placements;
use super::parameters::Parameters;
use crate::detection::Detection;
use crate::error::ServingError;
use crate::repository::{DETECTIONS_OUTPUT, InferenceResponse, ModelVersion, Task};
use crate::scheduler::names;
use crate::tensor::Tensor;

/// An output as a request asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WantedOutput {
    pub(crate) name: String,
    pub(crate) parameters: Parameters,
}

/// An output as it is answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AnsweredOutput {
    pub(crate) tensor: Tensor,
    /// Whether the caller wants its bytes as they are (`true`) or as typed elements: what the output's `binary_data`
    /// says, else the request's `binary_data_output`. Absent: the face's own habit.
    pub(crate) binary: Option<bool>,
    /// Whether its bytes were made for this answer, and are not those of its batch's outputs.
    pub(crate) own: bool,
}

/// The outputs that a request wants.
#[derive(Debug)]
pub(super) struct Wanted {
    /// In the order of the request; empty: all of the model's.
    outputs: Vec<Form>,
    /// Whether [`DETECTIONS_OUTPUT`] is among them and made here, and not an output of the model itself.
    detections: bool,
    /// What the request says of all outputs.
    binary: Option<bool>,
}

#[derive(Debug)]
struct Form {
    name: String,
    classes: Option<usize>,
    binary: Option<bool>,
}

impl Wanted {
    /// Checks what is asked for.
    pub(super) fn new(
        model: &ModelVersion,
        request: &Parameters,
        outputs: Vec<WantedOutput>,
    ) -> Result<Self, ServingError> {
        let binary = request.flag("binary_data_output")?;
        let mut seen = HashSet::new();
        for WantedOutput { name, parameters } in &outputs {
            if !seen.insert(name.as_str()) {
                return Err(invalid(format!("Output `{name}` is asked for twice: ask once.")));
            }
            if parameters.get("shared_memory_region").is_some() {
                return Err(invalid(format!(
                    "Output `{name}` is to be put into shared memory, which is not supported: leave out its parameter \
                     `shared_memory_region`."
                )));
            }
        }
        let detects = model.task() == Task::Detection;
        let detections = detects && seen.contains(DETECTIONS_OUTPUT);
        let known = || {
            let of_model = model.outputs().iter().map(|output| &*output.name);
            of_model.chain(detects.then_some(DETECTIONS_OUTPUT))
        };
        // Before images are decoded for it.
        if let Some(unknown) = outputs.iter().find(|output| !known().any(|name| name == output.name)) {
            return Err(invalid(format!(
                "Model `{}` has no output `{}`; its outputs are {}.",
                model.name(),
                unknown.name,
                names(known())
            )));
        }
        let outputs = outputs.into_iter().map(|WantedOutput { name, parameters }| {
            let classes = parameters.classification()?;
            let spec = model.outputs().iter().find(|spec| *spec.name == *name);
            let has_no_classes = match spec {
                Some(spec) => !classifiable(spec.datatype),
                None => detections && name == DETECTIONS_OUTPUT,
            };
            if classes.is_some() && has_no_classes {
                return Err(invalid(format!(
                    "Output `{name}` is asked for with the parameter `classification`, which its data type does not \
                     allow: leave it out."
                )));
            }
            Ok(Form { binary: parameters.flag("binary_data")?.or(binary), name, classes })
        });
        Ok(Self { outputs: outputs.collect::<Result<_, ServingError>>()?, detections, binary })
    }

    /// What the model is asked for: detections are made from all of its outputs.
    pub(super) fn model_outputs(&self) -> Vec<String> {
        if self.detections { Vec::new() } else { self.outputs.iter().map(|form| form.name.clone()).collect() }
    }

    /// What was found in each row, if that is wanted: in 0..1 of the images that were sent, else of the tensor.
    pub(super) fn detections(
        &self,
        model: &ModelVersion,
        response: &InferenceResponse,
        placements: &Placements,
    ) -> Result<Option<Vec<Vec<Detection>>>, ServingError> {
        if !self.detections {
            return Ok(None);
        }
        let mut rows = model.detections(response)?;
        for (row, placement) in rows.iter_mut().zip(placements) {
            for found in row {
                found.bbox = placement.to_image(found.bbox);
            }
        }
        Ok(Some(rows))
    }

    /// Bytes that [`Wanted::pick`] takes and goes through to classify `outputs`; 0 when none is to be.
    pub(super) fn classification_cost(&self, model: &ModelVersion, outputs: &[Tensor]) -> usize {
        let cost = |form: &Form| {
            let output = outputs.iter().find(|output| output.name == form.name)?;
            Some(classification::cost(output, model.max_batch_size() > 0, form.classes?))
        };
        self.outputs.iter().filter_map(cost).sum()
    }

    /// The outputs of the answer. Takes long when many values are classified: run it through
    /// [`Offload`](super::offload::Offload), with [`Wanted::classification_cost`].
    pub(super) fn pick(
        self,
        model: &ModelVersion,
        mut outputs: Vec<Tensor>,
        detections: Option<Vec<Vec<Detection>>>,
    ) -> Result<Vec<AnsweredOutput>, ServingError> {
        if self.outputs.is_empty() {
            let binary = self.binary;
            let answered = |tensor| AnsweredOutput { tensor, binary, own: false };
            return Ok(outputs.into_iter().map(answered).collect());
        }
        let mut detections = detections.as_deref().map(detections_output).transpose()?;
        let mut answered = Vec::with_capacity(self.outputs.len());
        for Form { name, classes, binary } in self.outputs {
            let made = self.detections && name == DETECTIONS_OUTPUT;
            let tensor = if made {
                detections.take()
            } else {
                let place = outputs.iter().position(|output| output.name == name);
                place.map(|place| outputs.swap_remove(place))
            };
            // Every name that is in neither was refused.
            let Some(tensor) = tensor else { continue };
            let tensor = match classes {
                None => tensor,
                Some(classes) => classify(&tensor, model.max_batch_size() > 0, classes, model.labels(&name))?,
            };
            answered.push(AnsweredOutput { tensor, binary, own: made || classes.is_some() });
        }
        Ok(answered)
    }
}

/// The output `detections`: for each row a JSON array of what was found.
fn detections_output(rows: &[Vec<Detection>]) -> Result<Tensor, ServingError> {
    let texts: Result<Vec<Vec<u8>>, _> = rows
        .iter()
        .map(|row| serde_json::to_vec(&row.iter().map(DetectionJson::from).collect::<Vec<_>>()))
        .collect();
    let texts = texts.map_err(|error| {
        ServingError::Internal(format!("The detections cannot be written as JSON: {error}."))
    })?;
    Ok(Tensor::from_byte_strings(DETECTIONS_OUTPUT, texts))
}

#[derive(Serialize)]
struct DetectionJson<'a> {
    class_name: &'a str,
    confidence: f32,
    bbox: BoundingBoxJson,
}

#[derive(Serialize)]
struct BoundingBoxJson {
    x_min: f32,
    y_min: f32,
    x_max: f32,
    y_max: f32,
}

impl<'a> From<&'a Detection> for DetectionJson<'a> {
    fn from(found: &'a Detection) -> Self {
        let [x_min, y_min, x_max, y_max] = found.bbox;
        let bbox = BoundingBoxJson { x_min, y_min, x_max, y_max };
        Self { class_name: &found.class_name, confidence: found.confidence, bbox }
    }
}

fn invalid(sentence: String) -> ServingError {
    ServingError::InvalidInput(sentence)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tensor::DataType;

    #[test]
    fn detections_are_one_json_array_per_row() {
        let found = Detection { class_name: "bus".into(), confidence: 0.5, bbox: [0.0, 0.25, 0.5, 1.0] };
        let output = detections_output(&[vec![found], vec![]]).unwrap();
        assert_eq!(
            (output.name.as_str(), output.datatype, &output.shape[..]),
            ("detections", DataType::Bytes, &[2][..])
        );
        let rows = output.byte_strings().unwrap();
        let expected = r#"[{"class_name":"bus","confidence":0.5,"bbox":{"x_min":0.0,"y_min":0.25,"x_max":0.5,"y_max":1.0}}]"#;
        assert_eq!(rows, [expected, "[]"]);
    }
}
