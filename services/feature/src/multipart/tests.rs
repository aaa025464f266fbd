#![allow(clippy::unwrap_used)]

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::convert::Infallible;

/// The parts up to the first error, with the error's text at the end.
type Outcome = Vec<Result<(Option<String>, Bytes), String>>;

fn content_type(boundary: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("multipart/form-data; boundary=\"{boundary}\"")).unwrap()
}

fn parts(boundary: &str, body: &Bytes) -> Outcome {
    let mut found = Vec::new();
    let mut read = || -> Result<(), FormError> {
        let mut parts = Parts::of(Some(&content_type(boundary)), body.clone())?;
        while let Some(Part { name, data }) = parts.next()? {
            if !data.is_empty() {
                assert!(body.as_ptr_range().contains(&data.as_ptr()), "a view of the body");
            }
            found.push(Ok((name, data)));
        }
        assert_eq!(parts.next(), Ok(None), "the end stays the end");
        Ok(())
    };
    let error = read().err();
    found.extend(error.map(|error| Err(error.to_string())));
    found
}

/// The same by another parser, which copies.
fn reference(boundary: &str, body: &Bytes) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut found = Vec::new();
    let read = async {
        let stream = tokio_stream::once(Ok::<_, Infallible>(body.clone()));
        let mut form = multer::Multipart::new(stream, boundary);
        while let Some(field) = form.next_field().await? {
            let name = field.name().map(str::to_owned);
            found.push(Ok((name, field.bytes().await?)));
        }
        Ok::<_, multer::Error>(())
    };
    let error = runtime.block_on(read).err();
    found.extend(error.map(|error| Err(error.to_string())));
    found
}

/// Whatever may be near a boundary, `b`, and in a head.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    const FRAGMENTS: [&[u8]; 22] = [
        b"--b",
        b"\r\n--b",
        b"--b\r\n",
        b"\r\n--b\r\n",
        b"\r\n--b--",
        b"\r\n--b--\r\n",
        b"--",
        b"b",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b" \t",
        b"Content-Disposition: form-data; name=\"image\"\r\n\r\n",
        b"content-disposition:form-data; filename=\"a name=b\"; name=user_id\r\n",
        b"Content-Disposition: form-data; name = \"a\\\"b\"; filename=\"x\"\r\n",
        b"Content-Disposition: attachment\r\n\r\n",
        b"Content-Type: image/jpeg\r\n\r\n",
        b"\xff\xd8\xff",
        b": ",
        b"name",
        b"\"",
    ];
    prop_oneof![
        9 => prop::sample::select(FRAGMENTS.to_vec()).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..20),
    ]
}

/// A part as a client writes it, without the boundary.
fn part() -> impl Strategy<Value = (String, Vec<u8>)> {
    ("[a-z_ü;= ]{0,8}", vec(fragment(), 0..6).prop_map(|fragments| fragments.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_bytes_are_read_as_by_the_reference(fragments in vec(fragment(), 0..24)) {
        let body = Bytes::from(fragments.concat());
        prop_assert_eq!(parts("b", &body), reference("b", &body));
    }

    #[test]
    fn forms_come_back_whatever_is_in_them(
        sent in vec(part(), 0..5),
        preamble in "[a-z\r\n-]{0,10}",
        epilogue in "[a-z\r\n-]{0,10}",
        cut in 0..40_usize,
    ) {
        // It is in no preamble and in no part.
        let boundary = "=?boundary of tests (1)";
        let mut body = preamble.into_bytes();
        for (name, data) in &sent {
            let head = format!("\r\n--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(data);
        }
        body.extend_from_slice(format!("\r\n--{boundary}--").as_bytes());
        let whole = body.len();
        body.extend_from_slice(epilogue.as_bytes());
        let expected: Outcome =
            sent.into_iter().map(|(name, data)| Ok((Some(name), data.into()))).collect();
        let body = Bytes::from(body);
        prop_assert_eq!(&parts(boundary, &body), &expected);
        prop_assert_eq!(reference(boundary, &body), expected);
        // Without its end it is no form.
        let cut = body.slice(..whole - cut.clamp(1, whole));
        let outcome = parts(boundary, &cut);
        prop_assert!(outcome.last().unwrap().is_err(), "{outcome:?}");
        prop_assert_eq!(outcome, reference(boundary, &cut));
    }

    #[test]
    fn names_are_read_as_by_the_reference(value in "(form-data; )?((file)?name|[\"\\\\=;, a-zü]){0,8}") {
        let body = format!("--b\r\nContent-Disposition: {value}\r\n\r\nx\r\n--b--");
        let body = Bytes::from(body);
        prop_assert_eq!(parts("b", &body), reference("b", &body));
    }
}

#[test]
fn a_name_has_its_escapes_undone_between_quotation_marks_only() {
    for (value, expected) in [
        (r#"form-data; name="a \"b\" \c""#, Some(r#"a "b" \c"#)),
        (r#"form-data; name=\""#, Some(r#"\""#)),
        (r#"form-data; filename="name"; name=user_id; x"#, Some("user_id")),
        (r#"form-data; filename="name""#, None),
        (r#"form-data; name="never closed\""#, None),
    ] {
        let body = Bytes::from(format!("--b\r\nContent-Disposition: {value}\r\n\r\nx\r\n--b--"));
        let outcome = parts("b", &body);
        assert_eq!(outcome, [Ok((expected.map(str::to_owned), Bytes::from_static(b"x")))], "{value}");
        assert_eq!(outcome, reference("b", &body));
    }
}

#[test]
fn more_headers_than_any_client_sends_are_refused() {
    for (headers, is_read) in [(MAX_HEADERS, true), (MAX_HEADERS + 1, false)] {
        let body = Bytes::from(format!("--b\r\n{}\r\nx\r\n--b--", "a: b\r\n".repeat(headers)));
        let outcome = parts("b", &body);
        assert_eq!(outcome[0].is_ok(), is_read, "{outcome:?}");
        assert_eq!(outcome, reference("b", &body));
    }
}

#[test]
fn a_boundary_is_read_from_the_content_type_or_missed() {
    let body = Bytes::from_static(b"--x y\r\n\r\n\r\n\r\n--x y--");
    let of = |value: &str| Parts::of(Some(&HeaderValue::from_str(value).unwrap()), body.clone()).map(|_| ());
    assert_eq!(of("multipart/form-data; boundary=\"x y\""), Ok(()));
    assert_eq!(of("Multipart/Form-Data; charset=utf-8; Boundary=x"), Ok(()));
    for missing in ["multipart/form-data", "multipart/mixed; boundary=x", "multipart/form-data; boundary"] {
        assert_eq!(of(missing), Err(FormError::Boundary), "{missing}");
    }
    assert_eq!(Parts::of(None, body.clone()).map(|_| ()), Err(FormError::Boundary));
    assert_eq!(of("multipart/form-data; boundary=z"), Err(FormError::Incomplete));
}
