//! What the embedded component is made of.

use sandbox::component_bytes;
use wasmparser::{Operator, Parser, Payload};

#[test]
fn it_imports_nothing() {
    let (mut imports, mut modules) = (Vec::new(), 0);
    // Inside the component lies another that names its exports. What that one imports are the functions of the core
    // module; what matters is what the outermost component and the core modules import.
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component_bytes()) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => (modules, depth) = (modules + 1, depth + 1),
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.unwrap().name.name.to_owned()));
            }
            Payload::ImportSection(section) => {
                imports.extend(section.into_imports().map(|import| import.unwrap().name.to_owned()));
            }
            _ => {}
        }
    }
    assert_eq!(imports, Vec::<String>::new());
    assert_eq!(depth, -1, "the component's own end was not found");
    assert!(modules >= 1, "the component holds no core module");
}

#[test]
fn it_computes_with_simd128() {
    let (mut operators, mut simd) = (0_u64, 0_u64);
    for payload in Parser::new(0).parse_all(component_bytes()) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            for operator in body.get_operators_reader().unwrap() {
                operators += 1;
                simd += u64::from(is_simd(&operator.unwrap()));
            }
        }
    }
    assert!(operators > 100_000, "only {operators} operators were found");
    // The resampler and the JPEG decoder alone have hundreds in their inner loops.
    assert!(simd > 1000, "only {simd} of {operators} operators are of simd128");
}

/// Arithmetic on v128, which no compiler emits unless simd128 is on.
fn is_simd(operator: &Operator<'_>) -> bool {
    use Operator as Op;
    matches!(
        operator,
        Op::V128Load { .. }
            | Op::V128Store { .. }
            | Op::I8x16Shuffle { .. }
            | Op::I8x16Swizzle
            | Op::I16x8Add
            | Op::I16x8Mul
            | Op::I32x4Add
            | Op::I32x4Mul
            | Op::I32x4DotI16x8S
    )
}
