//! What a model takes, read from its Triton configuration.

use crate::Error;
use convoy_proto::inference::ModelConfig;
use convoy_proto::inference::model_input::Format;
use sandbox::{Color, Filter, Resize};
use std::net::SocketAddr;
use std::str::FromStr;

/// The image input of a detection model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelInput {
    /// The model's own name; requests may have asked for it by the empty name.
    pub(crate) model: String,
    /// The version that the configuration is of, if model-serving said so.
    pub(crate) version: Option<String>,
    /// Which preprocessing it is, if model-serving said so.
    pub(crate) preprocessing_id: Option<String>,
    /// The replica of model-serving that said all this.
    pub(crate) told_by: Option<SocketAddr>,
    /// Name of the image input.
    pub(crate) tensor: String,
    /// What an image is made into for it.
    pub(crate) resize: Resize,
    /// Whether the model makes it by a component of its own, and is sent encoded images.
    pub(crate) takes_encoded: bool,
}

impl ModelInput {
    /// Reads the completed configuration of a model.
    ///
    /// # Errors
    /// When it is no detection model, or has no single image input of a fixed size.
    pub(crate) fn of(config: &ModelConfig, version: Option<String>) -> Result<Self, Error> {
        let unfit = |problem: String| Error::ModelUnfit { model: config.name.clone(), problem };
        let parameter = |key: &str| config.parameters.get(key).map(|p| p.string_value.trim());
        let task = parameter("task").unwrap_or("none");
        if task != "detection" {
            return Err(unfit(format!("its task is {task}, not detection")));
        }
        let [input] = config.input.as_slice() else {
            return Err(unfit(format!("it has {} inputs, not one", config.input.len())));
        };
        let (width, height) = size(input.format(), &input.dims, config.max_batch_size > 0)
            .ok_or_else(|| unfit(format!("its input {} is no image of a fixed size", input.name)))?;
        let resize = Resize {
            width,
            height,
            fit: option(parameter("fit")).map_err(&unfit)?,
            filter: option::<Filter>(parameter("filter")).map_err(&unfit)?,
            color: option(parameter("color")).map_err(&unfit)?,
            decode: option(parameter("decode")).map_err(&unfit)?,
        };
        if resize.color == Color::Gray {
            return Err(unfit("its color is gray, and a tensor of three channels is sent".to_owned()));
        }
        let takes_encoded = parameter("preprocessing") == Some("model");
        Ok(Self {
            model: config.name.clone(),
            version,
            preprocessing_id: parameter("preprocessing_id").map(str::to_owned),
            told_by: None,
            tensor: input.name.clone(),
            resize,
            takes_encoded,
        })
    }

    /// Whether an image preprocessed for `other` is the one that this input takes.
    pub(crate) fn takes_the_same(&self, other: &Self) -> bool {
        self.tensor == other.tensor
            && self.resize == other.resize
            && self.takes_encoded == other.takes_encoded
    }
}

/// A parameter's word; none, or an empty one, is the default.
fn option<T: FromStr<Err = sandbox::ParseOptionError> + Default>(word: Option<&str>) -> Result<T, String> {
    match word {
        None | Some("") => Ok(T::default()),
        Some(word) => word.parse().map_err(|e: T::Err| e.to_string().trim_end_matches('.').to_owned()),
    }
}

/// Width and height of an input with three channels. Triton's `dims` have the batch in them only if the model does
/// not batch (`max_batch_size` 0).
fn size(format: Format, dims: &[i64], batched: bool) -> Option<(u32, u32)> {
    let image: &[i64; 3] = match dims {
        [_, rest @ ..] if !batched && dims.len() == 4 => rest.try_into().ok()?,
        _ => dims.try_into().ok()?,
    };
    let (height, width) = match (format, image) {
        (Format::Nhwc | Format::None, [height, width, 3]) => (height, width),
        (Format::Nchw | Format::None, [3, height, width]) => (height, width),
        _ => return None,
    };
    let pixels = |n: &i64| u32::try_from(*n).ok().filter(|n| *n > 0);
    Some((pixels(width)?, pixels(height)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use convoy_proto::inference::{self, ModelParameter};
    use sandbox::{Decode, Fit};

    fn config(format: Format, dims: &[i64], max_batch_size: i32, parameters: &[(&str, &str)]) -> ModelConfig {
        let parameters = parameters
            .iter()
            .map(|(k, v)| ((*k).to_owned(), ModelParameter { string_value: (*v).to_owned() }));
        ModelConfig {
            name: "m".to_owned(),
            max_batch_size,
            input: vec![inference::ModelInput {
                name: "images".to_owned(),
                format: format.into(),
                dims: dims.to_vec(),
                ..Default::default()
            }],
            parameters: parameters.collect(),
            ..Default::default()
        }
    }

    const DETECTION: &[(&str, &str)] = &[("task", "detection")];

    #[test]
    fn the_size_is_found_in_every_layout() {
        for (format, dims, batch) in [
            (Format::Nhwc, &[200, 300, 3][..], 8),
            (Format::None, &[200, 300, 3], 8),
            (Format::Nchw, &[3, 200, 300], 8),
            (Format::None, &[3, 200, 300], 8),
            (Format::Nhwc, &[-1, 200, 300, 3], 0),
            (Format::None, &[1, 3, 200, 300], 0),
        ] {
            let input = ModelInput::of(&config(format, dims, batch, DETECTION), None).unwrap();
            assert_eq!((input.resize.width, input.resize.height), (300, 200), "{format:?} {dims:?}");
        }
    }

    #[test]
    fn fit_filter_color_and_decode_are_the_configured_ones_or_the_defaults() {
        let parameters = [
            ("task", "detection"),
            ("fit", "letterbox"),
            ("filter", "bilinear"),
            ("color", "bgr"),
            ("decode", "full"),
        ];
        let input = ModelInput::of(&config(Format::Nhwc, &[4, 4, 3], 1, &parameters), None).unwrap();
        assert_eq!((input.resize.fit, input.resize.filter), (Fit::Letterbox, Filter::Bilinear));
        assert_eq!((input.resize.color, input.resize.decode), (Color::Bgr, Decode::Full));
        let input = ModelInput::of(&config(Format::Nhwc, &[4, 4, 3], 1, DETECTION), None).unwrap();
        assert_eq!((input.resize.fit, input.resize.filter), (Fit::Stretch, Filter::Bicubic));
        assert_eq!((input.resize.color, input.resize.decode), (Color::Rgb, Decode::Auto));
    }

    #[test]
    fn a_model_that_takes_no_image_is_refused_with_the_reason() {
        for (config, reason) in [
            (config(Format::Nhwc, &[4, 4, 3], 1, &[]), "its task is none"),
            (config(Format::Nhwc, &[4, 4, 3], 1, &[("task", "classification")]), "classification"),
            (config(Format::Nhwc, &[-1, -1, 3], 1, DETECTION), "fixed size"),
            (config(Format::Nhwc, &[4, 4, 1], 1, DETECTION), "no image"),
            (config(Format::Nchw, &[4, 4, 3], 1, DETECTION), "no image"),
            (config(Format::None, &[1, 4, 4, 3], 1, DETECTION), "no image"),
            (config(Format::None, &[], 0, DETECTION), "no image"),
            (config(Format::Nhwc, &[4, 4, 3], 1, &[("task", "detection"), ("fit", "cover")]), "cover"),
            (config(Format::Nhwc, &[4, 4, 3], 1, &[("task", "detection"), ("color", "gray")]), "gray"),
        ] {
            let error = ModelInput::of(&config, None).unwrap_err();
            assert!(
                matches!(error, Error::ModelUnfit { .. }) && error.to_string().contains(reason),
                "{error}"
            );
        }
        let mut two = config(Format::Nhwc, &[4, 4, 3], 1, DETECTION);
        two.input.push(two.input[0].clone());
        assert!(ModelInput::of(&two, None).unwrap_err().to_string().contains("2 inputs"));
    }
}
