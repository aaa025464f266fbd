#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

fn shape(dims: &[i64]) -> Shape {
    Shape::from(dims)
}

fn read_as<const N: usize>(json: &str, datatype: DataType) -> Result<[u8; N], String> {
    read(json, datatype, &shape(&[1])).map(|data| data[..].try_into().unwrap())
}

#[test]
fn flat_and_nested_data_are_the_same_elements() {
    let shape = shape(&[2, 1, 3]);
    let flat = read("[1,2,3,4,5,6]", DataType::Uint8, &shape).unwrap();
    let nested = read(" [ [[1, 2,3]] ,\n[[4,5,6]]]", DataType::Uint8, &shape).unwrap();
    assert_eq!((&flat[..], &flat), (&[1, 2, 3, 4, 5, 6][..], &nested));
    let empty = self::shape(&[2, 0]);
    for json in ["[]", "[[],[]]"] {
        assert!(read(json, DataType::Fp32, &empty).unwrap().is_empty(), "{json}");
    }
    assert_eq!(&read("[7]", DataType::Uint8, &self::shape(&[])).unwrap()[..], [7]);
}

#[test]
fn data_that_nests_otherwise_is_refused() {
    let cases = [
        ("[1, 2, 3]", "3 elements, its shape [2,2] has 4"),
        ("[1,2,3,4,5]", "more elements"),
        ("[[1,2], [3]]", "nested as its shape"),
        ("[[1,2,3],[4]]", "nested as its shape"),
        ("[[1,2],3,4]", "nested as its shape"),
        ("[1,2,[3,4]]", "nested as its shape"),
        ("[[[1,2],[3,4]]]", "nested as its shape"),
        ("[[1,2,3,4]]", "nested as its shape"),
        ("1234567890", "no array"),
        ("\"abcdefgh\"", "no array"),
        ("[1]", "less data"),
    ];
    for (json, part) in cases {
        let error = read(json, DataType::Uint8, &shape(&[2, 2])).unwrap_err();
        assert!(error.contains(part), "{json}: {error:?} does not say {part:?}");
    }
}

#[test]
fn an_element_is_of_its_type_or_refused() {
    for (json, datatype) in [
        ("[256]", DataType::Uint8),
        ("[-1]", DataType::Uint8),
        ("[-129]", DataType::Int8),
        ("[32768]", DataType::Int16),
        ("[65536]", DataType::Uint16),
        ("[2147483648]", DataType::Int32),
        ("[4294967296]", DataType::Uint32),
        ("[9223372036854775808]", DataType::Int64),
        ("[18446744073709551616]", DataType::Uint64),
        ("[1.0]", DataType::Int32),
        ("[1e2]", DataType::Uint8),
        ("[1e39]", DataType::Fp32),
        ("[-1e309]", DataType::Fp64),
        ("[true]", DataType::Fp32),
        ("[1]", DataType::Bool),
        ("[\"true\"]", DataType::Bool),
        ("[\"1\"]", DataType::Uint8),
        ("[null]", DataType::Fp32),
        ("[{}]", DataType::Fp32),
        ("[{\"a\":[1]}]", DataType::Uint8),
        ("[1]", DataType::Bytes),
        ("[\"\\ud800\"]", DataType::Bytes),
    ] {
        let error = read_as::<0>(json, datatype).unwrap_err();
        assert!(error.contains("which is no") || error.contains("nested"), "{json} {datatype}: {error}");
    }
    for datatype in [DataType::Fp16, DataType::Bf16] {
        assert!(read_as::<2>("[1]", datatype).unwrap_err().contains("binary data"));
    }
    assert_eq!(read_as("[255]", DataType::Uint8), Ok([255]));
    assert_eq!(read_as("[true]", DataType::Bool), Ok([1]));
    assert_eq!(read_as("[-9223372036854775808]", DataType::Int64), Ok(i64::MIN.to_le_bytes()));
    assert_eq!(read_as("[18446744073709551615]", DataType::Uint64), Ok(u64::MAX.to_le_bytes()));
    assert_eq!(read_as("[1]", DataType::Fp32), Ok(1_f32.to_le_bytes()), "a whole number is a float, too");
    assert_eq!(read_as("[0.1]", DataType::Fp64), Ok(0.1_f64.to_le_bytes()));
    let text = read(r#"["a\"],[\\", "é\n", ""]"#, DataType::Bytes, &shape(&[3])).unwrap();
    assert_eq!(&text[..], b"\x06\0\0\0a\"],[\\\x03\0\0\0\xc3\xa9\n\0\0\0\0");
}

#[test]
fn what_json_cannot_carry_is_not_written() {
    let tensor = |datatype, data: &[u8]| Tensor {
        name: "y".to_owned(),
        datatype,
        shape: shape(&[1]),
        data: data.to_vec().into(),
    };
    for (tensor, part) in [
        (tensor(DataType::Fp32, &f32::NAN.to_le_bytes()), "NaN"),
        (tensor(DataType::Fp64, &f64::INFINITY.to_le_bytes()), "NaN"),
        (tensor(DataType::Fp16, &[0, 0]), "FP16"),
        (tensor(DataType::Bytes, &[1, 0, 0, 0, 0xff]), "UTF-8"),
    ] {
        let error = write(&tensor, &mut Vec::new()).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

fn tensors() -> impl Strategy<Value = Tensor> {
    let types: Vec<DataType> = DataType::ALL
        .into_iter()
        .filter(|datatype| !matches!(datatype, DataType::Fp16 | DataType::Bf16))
        .collect();
    let words = proptest::collection::vec(any::<[u8; 8]>(), 0..12);
    (proptest::sample::select(types), words, ".{0,6}").prop_map(|(datatype, mut words, text)| {
        let columns = if words.len().is_multiple_of(3) { 3 } else { 1 };
        let dims = shape(&[(words.len() / columns) as i64, columns as i64]);
        let Some(size) = datatype.byte_size() else {
            let texts: Vec<&str> = words.iter().map(|_| text.as_str()).collect();
            return Tensor { shape: dims, ..Tensor::from_byte_strings("x", texts) };
        };
        for word in &mut words {
            match datatype {
                DataType::Bool => word[0] %= 2,
                DataType::Fp32 if !f32::from_le_bytes(*word.first_chunk().unwrap()).is_finite() => {
                    word[3] = 0
                }
                DataType::Fp64 if !f64::from_le_bytes(*word).is_finite() => word[7] = 0,
                _ => {}
            }
        }
        let data: Vec<u8> = words.iter().flat_map(|word| &word[..size]).copied().collect();
        Tensor { name: "x".to_owned(), datatype, shape: dims, data: data.into() }
    })
}

/// `flat` as rows of `columns` elements each.
fn nested(flat: &str, columns: i64) -> String {
    let elements: Vec<&RawValue> = serde_json::from_str(flat).unwrap();
    serde_json::to_string(&elements.chunks(columns as usize).collect::<Vec<_>>()).unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_bit_for_bit(tensor in tensors()) {
        let mut json = Vec::new();
        write(&tensor, &mut json).unwrap();
        let json = String::from_utf8(json).unwrap();
        prop_assert_eq!(&read(&json, tensor.datatype, &tensor.shape).unwrap(), &tensor.data);
        let nested = nested(&json, tensor.shape[1]);
        prop_assert_eq!(&read(&nested, tensor.datatype, &tensor.shape).unwrap(), &tensor.data);
    }

    /// Not even text that is no JSON makes it panic or make room for more than is there.
    #[test]
    fn nothing_makes_it_panic(
        json in r#"[\[\]{},:"\\ 0-9eEtrufalsn.+-]{0,40}|\PC{0,20}"#,
        dims in proptest::collection::vec(prop_oneof![-2_i64..5, Just(i64::MAX), Just(1 << 40)], 0..5),
        datatype in proptest::sample::select(DataType::ALL.to_vec()),
    ) {
        if let Ok(data) = read(&json, datatype, &shape(&dims)) {
            prop_assert!(datatype.byte_size().is_none_or(|size| data.len() <= size * json.len()));
        }
    }
}
