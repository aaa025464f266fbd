//! REST edge: image to features, image to stored prediction.
