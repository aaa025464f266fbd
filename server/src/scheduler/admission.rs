//! Does a request fit the model? What passes here cannot fail in a backend for its shape, and mixes with others.

use std::sync::Arc;

use super::pixels::PixelConversion;
use super::request::{Encoding, InferenceRequest, PreparedInput, PreparedRequest};
use crate::error::ServingError;
use crate::tensor::{DataType, Shape, Tensor, TensorSpec, byte_string_ends};

/// An input of a model, and how pixels become it.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Name, type, and dimensions without the batch dimension.
    pub tensor: TensorSpec,
    /// For the image input of a vision model.
    pub pixels: Option<PixelInput>,
}

/// How UINT8 `[n,h,w,3]` becomes a model's image input.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelInput {
    /// Height in pixels.
    pub height: i64,
    /// Width in pixels.
    pub width: i64,
    /// What happens to each pixel.
    pub conversion: PixelConversion,
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// Name of the model, for messages.
    pub model: Arc<str>,
    /// Inputs in the model's order.
    pub inputs: Vec<InputSpec>,
    /// Outputs in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// Rows a request may have; 0 when the model has no batch dimension.
    pub max_batch_size: usize,
}

impl Signature {
    /// Whether tensors have a batch dimension in front.
    pub fn has_batch_dimension(&self) -> bool {
        self.max_batch_size > 0
    }

    /// Checks a request against the model.
    ///
    /// # Errors
    /// `InvalidInput` with a sentence that names what does not fit.
    pub(crate) fn prepare(&self, request: InferenceRequest) -> Result<PreparedRequest, ServingError> {
        let InferenceRequest { id, inputs: mut given, outputs, .. } = request;
        let mut rows = None;
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for spec in &self.inputs {
            let name = &*spec.tensor.name;
            let at = given
                .iter()
                .position(|tensor| tensor.name == name)
                .ok_or_else(|| self.missing(name, &given))?;
            let tensor = given.swap_remove(at);
            if given.iter().any(|other| other.name == name) {
                return Err(invalid(format!("Input `{name}` is given more than once.")));
            }
            let (tensor_rows, input) = self.prepare_input(spec, tensor)?;
            match rows {
                Some((first, rows)) if rows != tensor_rows => {
                    return Err(invalid(format!(
                        "Input `{name}` has {tensor_rows} rows but input `{first}` has {rows}: all inputs of a request have the same."
                    )));
                }
                _ => rows = Some((name, tensor_rows)),
            }
            inputs.push(input);
        }
        if let Some(unknown) = given.first() {
            return Err(invalid(format!(
                "Model `{}` has no input `{}`; its inputs are {}.",
                self.model,
                unknown.name,
                names(self.inputs.iter().map(|spec| &*spec.tensor.name))
            )));
        }
        let rows = rows.map_or(1, |(_, rows)| rows);
        Ok(PreparedRequest { id, rows, inputs, outputs: self.wanted_outputs(&outputs)? })
    }

    fn missing(&self, name: &str, given: &[Tensor]) -> ServingError {
        let stranger = |tensor: &&Tensor| !self.inputs.iter().any(|spec| *spec.tensor.name == *tensor.name);
        let hint = match given.iter().find(stranger) {
            Some(unknown) => format!(" (`{}` is none of its inputs)", unknown.name),
            None => String::new(),
        };
        invalid(format!("Input `{name}` of model `{}` is missing{hint}.", self.model))
    }

    fn prepare_input(
        &self,
        spec: &InputSpec,
        tensor: Tensor,
    ) -> Result<(usize, PreparedInput), ServingError> {
        let expected = &spec.tensor;
        if expected.datatype == tensor.datatype && self.fits(&tensor.shape, &expected.dims) {
            let (rows, row_shape) = self.split_rows(&tensor.shape);
            self.check_rows(&tensor, rows)?;
            check_size(&tensor)?;
            return Ok((rows, PreparedInput { row_shape, data: tensor.data, encoding: Encoding::Declared }));
        }
        if let Some(pixels) = &spec.pixels
            && tensor.datatype == DataType::Uint8
            && matches!(*tensor.shape, [_, h, w, 3] if h == pixels.height && w == pixels.width)
        {
            let rows = usize::try_from(tensor.shape[0]).unwrap_or(0);
            self.check_rows(&tensor, rows)?;
            check_size(&tensor)?;
            // The dimensions of an image input are all fixed, so this is the shape of its rows.
            let row_shape = Shape::from(&*expected.dims);
            return Ok((rows, PreparedInput { row_shape, data: tensor.data, encoding: Encoding::Pixels }));
        }
        Err(self.misfit(spec, &tensor))
    }

    fn misfit(&self, spec: &InputSpec, tensor: &Tensor) -> ServingError {
        let mut shape = spec.tensor.dims.clone();
        if self.has_batch_dimension() {
            shape.insert(0, -1);
        }
        let pixels = match &spec.pixels {
            Some(pixels) => {
                let tensor = format!("UINT8 of shape [-1,{},{},3]", pixels.height, pixels.width);
                let declared = format!("{} of shape {}", spec.tensor.datatype, Shape::from(&*shape));
                let tensor = if tensor == declared { String::new() } else { format!(", or {tensor}") };
                format!("{tensor}, or encoded images as BYTES of shape [-1]")
            }
            None => String::new(),
        };
        invalid(format!(
            "Input `{}` of model `{}` is {} of shape {}{pixels}; the request has {} of shape {}.",
            spec.tensor.name,
            self.model,
            spec.tensor.datatype,
            Shape::from(shape),
            tensor.datatype,
            tensor.shape
        ))
    }

    fn fits(&self, shape: &Shape, dims: &[i64]) -> bool {
        let row = match self.has_batch_dimension() {
            true => shape.get(1..),
            false => Some(shape.dims()),
        };
        let fits = |(&given, &declared): (&i64, &i64)| given >= 0 && (declared < 0 || given == declared);
        row.is_some_and(|row| row.len() == dims.len() && row.iter().zip(dims).all(fits))
    }

    fn split_rows(&self, shape: &Shape) -> (usize, Shape) {
        match (self.has_batch_dimension(), shape.split_first()) {
            (true, Some((&rows, row))) => (usize::try_from(rows).unwrap_or(0), Shape::from(row)),
            _ => (1, shape.clone()),
        }
    }

    fn check_rows(&self, tensor: &Tensor, rows: usize) -> Result<(), ServingError> {
        let most = self.max_batch_size.max(1);
        if rows == 0 {
            return Err(invalid(format!(
                "Input `{}` has no rows: its shape is {}.",
                tensor.name, tensor.shape
            )));
        }
        if rows > most {
            return Err(invalid(format!(
                "Input `{}` has {rows} rows; model `{}` takes at most {most} in a request: send several requests.",
                tensor.name, self.model
            )));
        }
        Ok(())
    }

    fn wanted_outputs(&self, wanted: &[String]) -> Result<Vec<usize>, ServingError> {
        if wanted.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        let position = |name: &String| {
            self.outputs.iter().position(|output| *output.name == **name).ok_or_else(|| {
                invalid(format!(
                    "Model `{}` has no output `{name}`; its outputs are {}.",
                    self.model,
                    names(self.outputs.iter().map(|output| &*output.name))
                ))
            })
        };
        let positions: Vec<usize> = wanted.iter().map(position).collect::<Result<_, _>>()?;
        for (i, position) in positions.iter().enumerate() {
            if positions[..i].contains(position) {
                return Err(invalid(format!("Output `{}` is asked for more than once.", wanted[i])));
            }
        }
        Ok(positions)
    }
}

/// Whether a tensor has as many bytes as its shape and type say.
fn check_size(tensor: &Tensor) -> Result<(), ServingError> {
    let Tensor { name, datatype, shape, data } = tensor;
    if *datatype == DataType::Bytes {
        let elements = byte_string_ends(data).map(|ends| ends.len());
        return match elements {
            Some(elements) if Some(elements) == shape.element_count() => Ok(()),
            Some(elements) => {
                Err(invalid(format!("Input `{name}` of shape {shape} has {elements} BYTES elements.")))
            }
            None => Err(invalid(format!(
                "The BYTES elements of input `{name}` do not add up: each is its length (4 bytes, little-endian) and its bytes."
            ))),
        };
    }
    match shape.byte_count(*datatype) {
        Some(bytes) if bytes == data.len() => {}
        Some(bytes) => {
            return Err(invalid(format!(
                "Input `{name}`, {datatype} of shape {shape}, is {bytes} bytes; the request has {}.",
                data.len()
            )));
        }
        None => return Err(invalid(format!("The shape {shape} of input `{name}` is too large."))),
    }
    if *datatype == DataType::Bool && data.iter().any(|&byte| byte > 1) {
        return Err(invalid(format!(
            "Input `{name}` is BOOL, and its bytes are 0 or 1 each; the request has others."
        )));
    }
    Ok(())
}

/// Names in the middle of a sentence.
pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn invalid(sentence: String) -> ServingError {
    ServingError::InvalidInput(sentence)
}

#[cfg(test)]
mod tests;
