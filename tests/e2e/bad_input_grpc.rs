//! Bad input over gRPC is INVALID_ARGUMENT with a sentence, and model-serving goes on.

use crate::grpc::client;
use crate::photo;
use convoy_proto::model_serving::PredictionRequest;
use tonic::Code;

async fn refused(request: PredictionRequest) -> String {
    let status = client().await.predict(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    assert!(!status.message().is_empty());
    status.message().to_owned()
}

async fn assert_goes_on() {
    let request = PredictionRequest { image: photo::bytes().into(), ..Default::default() };
    assert!(!client().await.predict(request).await.unwrap().into_inner().detections.is_empty());
}

#[tokio::test]
async fn exactly_one_image_must_be_set() {
    refused(PredictionRequest::default()).await;
    let both = PredictionRequest {
        image: photo::bytes().into(),
        image_data: "QUJD".to_owned(),
        ..Default::default()
    };
    let sentence = refused(both).await;
    assert!(sentence.contains("image_data"), "{sentence}");
    assert_goes_on().await;
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let photo = photo::bytes();
    for image in [b"This is no image.".as_slice(), &photo[..photo.len() / 2], b"\xff\xd8\xff"] {
        refused(PredictionRequest { image: image.to_vec().into(), ..Default::default() }).await;
    }
    let not_base64 = PredictionRequest { image_data: "no base64!".to_owned(), ..Default::default() };
    let sentence = refused(not_base64).await;
    assert!(sentence.contains("base64"), "{sentence}");
    assert_goes_on().await;
}

#[tokio::test]
async fn ids_that_break_logs_are_refused() {
    for id in ["..", "a\nb", &"x".repeat(257)] {
        let image = photo::bytes();
        let named = PredictionRequest {
            request_id: id.to_owned(),
            image: image.clone().into(),
            ..Default::default()
        };
        assert!(refused(named).await.contains("request_id"));
        let owned = PredictionRequest { user_id: id.to_owned(), image: image.into(), ..Default::default() };
        assert!(refused(owned).await.contains("user_id"));
    }
    assert_goes_on().await;
}

#[tokio::test]
async fn a_message_of_200_mib_is_refused() {
    let request = PredictionRequest { image: vec![0_u8; 200 << 20].into(), ..Default::default() };
    refused(request).await;
    assert_goes_on().await;
}
