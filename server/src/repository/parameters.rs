//! What Triton's model configuration has no field for: Convoy's own `parameters`.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use convoy_proto::inference::ModelParameter;
use sandbox::{Color, Decode, Filter, Fit};

use super::version::Task;
use crate::detection::BoxFormat;

/// Every parameter there is.
const KNOWN: [&str; 26] = [
    "task",
    "labels",
    "keep_classes",
    "score_threshold",
    "iou_threshold",
    "max_detections",
    "boxes_output",
    "scores_output",
    "box_format",
    "fit",
    "filter",
    "color",
    "decode",
    "mean",
    "scale",
    "intra_op_thread_count",
    "device_id",
    "session.disable_cpu_ep_fallback",
    "slo_ms",
    "image_input",
    "detections_output",
    "preprocessing",
    "preprocessing_id",
    "execution_provider",
    "device_fallback",
    "execution_nodes",
];
/// What [`Parameters::complete`] tells clients in `image_input` and `detections_output`, which say nothing to the
/// server, nor do `preprocessing` and `preprocessing_id`: a configuration that it wrote may be given back to it.
const IMAGE_INPUT: &str = "the declared tensor, UINT8 [n,h,w,3], or BYTES [n] or [n,1] of encoded images";
const DETECTIONS_OUTPUT: &str = "detections: BYTES [n], on request, a JSON array for each row; coordinates from 0 to 1 \
     of the image for encoded images, else of the tensor";
/// Those that only a model with an image input has a use for.
pub(crate) const OF_IMAGES: [&str; 4] = ["fit", "filter", "color", "decode"];
/// Those that only a detector has.
const OF_DETECTION: [&str; 7] = [
    "keep_classes",
    "score_threshold",
    "iou_threshold",
    "max_detections",
    "boxes_output",
    "scores_output",
    "box_format",
];

/// Convoy's parameters of a model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    /// `task`: what the outputs mean. Default: nothing is known.
    pub(crate) task: Task,
    /// `labels`: the file with the class names, one a line, in the model's folder. Default: `labels.txt`.
    pub(crate) labels: String,
    /// `keep_classes`: names separated by commas. Default: all.
    pub(crate) keep_classes: Option<Vec<String>>,
    /// `score_threshold`, 0..=1. Default: 0.35.
    pub(crate) score_threshold: f32,
    /// `iou_threshold`, 0..=1. Default: 0.5.
    pub(crate) iou_threshold: f32,
    /// `max_detections` of an image. Default: 100.
    pub(crate) max_detections: usize,
    /// `boxes_output`. Default: `boxes`.
    pub(crate) boxes_output: String,
    /// `scores_output`. Default: `scores`.
    pub(crate) scores_output: String,
    /// `box_format`. Default: `xyxy_pixels`.
    pub(crate) box_format: BoxFormat,
    /// `fit`: how an image is brought to the input's size. Default: `stretch`.
    pub(crate) fit: Fit,
    /// `filter`: how it is resampled. Default: `bilinear`.
    pub(crate) filter: Filter,
    /// `color`: the order of an encoded image's channels in the input. Default: `rgb`.
    pub(crate) color: Color,
    /// `decode`: whether large JPEGs may be decoded at a fraction of their size. Default: `auto`, they may.
    pub(crate) decode: Decode,
    /// `mean`: one number, or one for each channel. `None`: not given.
    pub(crate) mean: Option<[f32; 3]>,
    /// `scale`: as `mean`. A float input's value is (u8 - mean) * scale.
    pub(crate) scale: Option<[f32; 3]>,
    /// `intra_op_thread_count`, as Triton's ONNX Runtime backend has it. `None`: the cores, shared by the instances.
    pub(crate) intra_op_threads: Option<usize>,
    /// `device_id`: number of the GPU. Default: the server's, 0 unless it says another.
    pub(crate) device_id: Option<i32>,
    /// `session.disable_cpu_ep_fallback`, ONNX Runtime's name: whether a model on a GPU may have no node on the CPU (1), or
    /// any (0). `None`: those that reckon with shapes; with `--device auto` any.
    pub(crate) disable_cpu_fallback: Option<bool>,
    /// `slo_ms`: the latency objective in milliseconds, or `none`. Outer `None`: the server's.
    pub(crate) slo: Option<Option<Duration>>,
}

impl Parameters {
    /// Reads the parameters of a configuration.
    ///
    /// # Errors
    /// With what is wrong, without a full stop at its end, for unknown names and for values that cannot be.
    pub(crate) fn parse(parameters: &HashMap<String, ModelParameter>) -> Result<Self, String> {
        let mut names: Vec<&String> = parameters.keys().collect();
        names.sort();
        if let Some(unknown) = names.iter().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(format!("parameter `{unknown}` is unknown; the parameters are {}", KNOWN.join(", ")));
        }
        let given = Given(parameters);
        let task = given.parse("task")?.unwrap_or(Task::None);
        if task != Task::Detection
            && let Some(name) = OF_DETECTION.into_iter().find(|name| given.text(name).is_some())
        {
            return Err(format!(
                "parameter `{name}` is for detectors only: set the parameter `task` to detection"
            ));
        }
        Ok(Self {
            task,
            labels: given.labels()?,
            keep_classes: given.text("keep_classes").map(list),
            score_threshold: given.fraction("score_threshold")?.unwrap_or(0.35),
            iou_threshold: given.fraction("iou_threshold")?.unwrap_or(0.5),
            max_detections: given.at_least_one("max_detections")?.unwrap_or(100),
            boxes_output: given.text("boxes_output").unwrap_or("boxes").to_owned(),
            scores_output: given.text("scores_output").unwrap_or("scores").to_owned(),
            box_format: given.parse("box_format")?.unwrap_or_default(),
            fit: given.parse("fit")?.unwrap_or_default(),
            filter: given.parse("filter")?.unwrap_or(Filter::Bilinear),
            color: given.color()?,
            decode: given.parse("decode")?.unwrap_or_default(),
            mean: given.channels("mean")?,
            scale: given.channels("scale")?,
            intra_op_threads: given.at_least_one("intra_op_thread_count")?,
            device_id: given.device_id()?,
            disable_cpu_fallback: given.switch("session.disable_cpu_ep_fallback")?,
            slo: given.slo()?,
        })
    }

    /// Writes the defaults of what the model has a use for into the configuration.
    pub(crate) fn complete(&self, parameters: &mut HashMap<String, ModelParameter>, is_vision: bool) {
        let mut default = |name: &str, value: &dyn Display| {
            let value = || ModelParameter { string_value: value.to_string() };
            parameters.entry(name.to_owned()).or_insert_with(value);
        };
        default("task", &self.task);
        if is_vision {
            default("fit", &self.fit);
            default("filter", &self.filter);
            default("color", &self.color);
            default("decode", &self.decode);
        }
        if self.task == Task::Detection {
            default("score_threshold", &self.score_threshold);
            default("iou_threshold", &self.iou_threshold);
            default("max_detections", &self.max_detections);
            default("boxes_output", &self.boxes_output);
            default("scores_output", &self.scores_output);
            default("box_format", &self.box_format.as_str());
        }
        let mut told = |name: &str, told: bool, text: &str| {
            parameters.remove(name);
            if told {
                parameters.insert(name.to_owned(), ModelParameter { string_value: text.to_owned() });
            }
        };
        told("image_input", is_vision, IMAGE_INPUT);
        told("detections_output", self.task == Task::Detection, DETECTIONS_OUTPUT);
    }
}

/// The parameters as given.
struct Given<'a>(&'a HashMap<String, ModelParameter>);

impl Given<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|parameter| parameter.string_value.trim())
    }

    fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| {
            text.parse().map_err(|error: T::Err| {
                format!("parameter `{name}`: {}", error.to_string().trim_end_matches('.'))
            })
        };
        self.text(name).map(parse).transpose()
    }

    fn color(&self) -> Result<Color, String> {
        match self.parse("color")?.unwrap_or_default() {
            Color::Gray => {
                Err("parameter `color` is gray, but an image input has three channels: rgb or bgr".to_owned())
            }
            color => Ok(color),
        }
    }

    fn fraction(&self, name: &str) -> Result<Option<f32>, String> {
        match self.text(name).map(|text| (text, text.parse::<f32>())) {
            None => Ok(None),
            Some((_, Ok(value))) if (0.0..=1.0).contains(&value) => Ok(Some(value)),
            Some((text, _)) => {
                Err(format!("parameter `{name}` is `{text}`, and must be a number from 0 to 1"))
            }
        }
    }

    fn at_least_one(&self, name: &str) -> Result<Option<usize>, String> {
        match self.text(name).map(|text| (text, text.parse::<u16>())) {
            None => Ok(None),
            Some((_, Ok(value))) if value > 0 => Ok(Some(usize::from(value))),
            Some((text, _)) => {
                Err(format!("parameter `{name}` is `{text}`, and must be a whole number from 1 to 65535"))
            }
        }
    }

    fn device_id(&self) -> Result<Option<i32>, String> {
        match self.text("device_id").map(|text| (text, text.parse::<u8>())) {
            None => Ok(None),
            Some((_, Ok(value))) => Ok(Some(i32::from(value))),
            Some((text, _)) => {
                Err(format!("parameter `device_id` is `{text}`, and must be the number of a GPU from 0 on"))
            }
        }
    }

    fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        match self.text(name) {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(text) => Err(format!("parameter `{name}` is `{text}`, and must be 1 or 0")),
        }
    }

    fn slo(&self) -> Result<Option<Option<Duration>>, String> {
        let Some(text) = self.text("slo_ms") else { return Ok(None) };
        if text.eq_ignore_ascii_case("none") {
            return Ok(Some(None));
        }
        let milliseconds = text.parse::<f64>().ok().filter(|value| (0.001..=86_400_000.0).contains(value));
        match milliseconds.and_then(|value| Duration::try_from_secs_f64(value / 1e3).ok()) {
            Some(slo) => Ok(Some(Some(slo))),
            None => Err(format!(
                "parameter `slo_ms` is `{text}`, and must be a number of milliseconds up to 86400000 (a day), or none"
            )),
        }
    }

    fn channels(&self, name: &str) -> Result<Option<[f32; 3]>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let numbers: Option<Vec<f32>> = text
            .split(',')
            .map(|part| part.trim().parse().ok().filter(|value: &f32| value.is_finite()))
            .collect();
        match numbers.as_deref() {
            Some(&[all]) => Ok(Some([all; 3])),
            Some(&[red, green, blue]) => Ok(Some([red, green, blue])),
            _ => Err(format!(
                "parameter `{name}` is `{text}`, and must be one number, or three separated by commas"
            )),
        }
    }

    /// The name of a file beside `config.pbtxt`, and nowhere else.
    fn labels(&self) -> Result<String, String> {
        let name = self.text("labels").unwrap_or("labels.txt");
        if name.is_empty() || name.contains('/') || name == ".." {
            return Err(format!(
                "parameter `labels` is `{name}`, and must be the name of a file in the model's folder"
            ));
        }
        Ok(name.to_owned())
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(given: &[(&str, &str)]) -> Result<Parameters, String> {
        let parameter = |&(name, value): &(&str, &str)| {
            (name.to_owned(), ModelParameter { string_value: value.to_owned() })
        };
        Parameters::parse(&given.iter().map(parameter).collect())
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let parameters = parse(&[]).unwrap();
        assert_eq!((parameters.task, parameters.slo), (Task::None, None));
        assert_eq!((parameters.score_threshold, parameters.iou_threshold), (0.35, 0.5));
        assert_eq!((parameters.fit, parameters.filter), (Fit::Stretch, Filter::Bilinear));
        assert_eq!((parameters.color, parameters.decode), (Color::Rgb, Decode::Auto));
        let mut completed = HashMap::new();
        parameters.complete(&mut completed, true);
        assert_eq!(completed["task"].string_value, "none");
        assert_eq!(completed["filter"].string_value, "bilinear");
        assert!(completed["image_input"].string_value.contains("BYTES"));
        assert!(!completed.contains_key("detections_output"));
        assert_eq!(Parameters::parse(&completed).unwrap(), parameters, "it takes what it writes");
    }

    #[test]
    fn values_are_read() {
        let parameters = parse(&[
            ("task", "detection"),
            ("keep_classes", "car, traffic light ,"),
            ("mean", "127.5"),
            ("scale", "0.1, 0.2,0.3"),
            ("fit", "letterbox"),
            ("color", "bgr"),
            ("decode", "full"),
            ("slo_ms", "2.5"),
        ])
        .unwrap();
        assert_eq!(parameters.keep_classes.unwrap(), ["car", "traffic light"]);
        assert_eq!(parameters.mean, Some([127.5; 3]));
        assert_eq!(parameters.scale, Some([0.1, 0.2, 0.3]));
        assert_eq!(parameters.fit, Fit::Letterbox);
        assert_eq!((parameters.color, parameters.decode), (Color::Bgr, Decode::Full));
        assert_eq!(parameters.slo, Some(Some(Duration::from_micros(2_500))));
        assert_eq!(parse(&[("slo_ms", "none")]).unwrap().slo, Some(None));
    }

    #[test]
    fn a_wrong_name_or_value_is_an_error_that_says_what_is_right() {
        for (given, part) in [
            (&[("score_treshold", "0.5")][..], "`score_treshold` is unknown"),
            (&[("task", "segmentation")], "segmentation"),
            (&[("keep_classes", "car")], "set the parameter `task` to detection"),
            (&[("task", "detection"), ("score_threshold", "1.5")], "from 0 to 1"),
            (&[("task", "detection"), ("score_threshold", "NaN")], "from 0 to 1"),
            (&[("task", "detection"), ("max_detections", "0")], "from 1"),
            (&[("task", "detection"), ("box_format", "xywh")], "xyxy_pixels"),
            (&[("mean", "1,2")], "three separated by commas"),
            (&[("scale", "inf")], "one number"),
            (&[("labels", "../secret")], "in the model's folder"),
            (&[("fit", "cover")], "stretch, letterbox, crop"),
            (&[("color", "gray")], "rgb or bgr"),
            (&[("decode", "half")], "auto, full"),
            (&[("device_id", "-1")], "number of a GPU"),
            (&[("session.disable_cpu_ep_fallback", "no")], "must be 1 or 0"),
            (&[("slo_ms", "0")], "number of milliseconds"),
            (&[("slo_ms", "1s")], "or none"),
        ] {
            let error = parse(given).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
