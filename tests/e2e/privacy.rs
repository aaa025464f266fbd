//! What logs say of users: nothing, where the operator wants it so. Logs outlive an erasure.

use crate::fixture::unique;
use crate::grpc::connect;
use crate::photo;
use crate::process::Process;
use crate::rest::{self, with_query, with_segment};
use convoy::ready_file::Addresses;
use convoy_proto::model_serving::PredictionRequest;
use convoy_proto::model_serving::model_serving_client::ModelServingClient;
use reqwest::Method;
use serde_json::json;

/// Does with `user` all that can be done with one, well and badly; returns the id of the prediction.
async fn use_everything(addresses: &Addresses, user: &str) -> String {
    let id = unique("r");
    let predict = format!("http://{}/predict", addresses.feature.unwrap());
    let url = with_query(predict, &[("request_id", &id), ("user_id", user)]);
    for (image, status) in [(photo::bytes(), 200), (photo::bytes(), 200), (b"no image".to_vec(), 409)] {
        let answer = rest::send(Method::POST, url.clone(), Some("image/jpeg"), image).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    let mut client = ModelServingClient::new(connect(addresses.grpc.unwrap()).await.unwrap());
    let request = |image: Vec<u8>| PredictionRequest {
        user_id: user.to_owned(),
        image: image.into(),
        ..Default::default()
    };
    client.predict(request(photo::bytes())).await.unwrap();
    client.predict(request(b"no image".to_vec())).await.unwrap_err();

    let predictions = format!("http://{}/predictions", addresses.results.unwrap());
    let body = json!({
        "request_id": unique("r"), "user_id": user, "predictions": [], "model_version": "1",
        "inference_time_ms": 1
    });
    for status in [201, 409] {
        rest::post_json(predictions.clone(), &body).await.json(status);
    }
    let of_user = with_segment(format!("{predictions}/user"), user);
    assert_eq!(rest::get(of_user.clone()).await.json(200)["count"], 2);
    assert_eq!(rest::delete(of_user).await.json(200)["deleted_count"], 2);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_in_the_audit_lines_alone_and_hashed_there_if_wanted() {
    let user = unique("user");
    for (form, lines) in [("hashed", 0), ("plain", 2)] {
        let (process, addresses) = Process::ready(&["--audit-user-id", form]);
        let id = use_everything(&addresses, &user).await;
        let log = process.log();
        let of_user = log.lines().filter(|line| line.contains(&user));
        assert_eq!(of_user.count(), lines, "{form}: {log}");
        assert!(log.contains(&id), "it says nothing of the request: {log}");
    }
}
