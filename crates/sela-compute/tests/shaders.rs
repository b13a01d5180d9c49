//! Every shader, on machines without any GPU: each is parsed, validated and translated into what
//! Metal, Vulkan and DX12 take, and keeps the rules that drivers impose and compilers do not check.
#![cfg(feature = "gpu")]
#![allow(clippy::print_stdout)] // Says how many there are.

use naga::back::{hlsl, msl, spv};
use naga::front::wgsl;
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, BinaryOperator, Block, Expression, Function, GlobalVariable, Handle, Literal,
    Module, RelationalFunction, ScalarKind, Statement,
};
use sela_compute::gpu::{encode, scan};

/// What a workgroup may share: 32 KiB on Apple's GPUs and on many others.
const WORKGROUP_BYTES: u32 = 32 << 10;
/// What the shaders that say so in their names may share: they run on GPUs that have it.
const LARGE_WORKGROUP_BYTES: u32 = 48 << 10;
/// Apple's compiler gets kernels with at most 32 threads in a workgroup wrong.
const WORKGROUP_THREADS: u32 = 64;
/// Metal binds no more to a kernel through wgpu.
const STORAGE_BUFFERS: usize = 8;
const IMMEDIATE_BYTES: u32 = 64;

/// Versions of Metal's language: of macOS 12, 13 and 26.
const MSL: [(u8, u8); 3] = [(2, 4), (3, 0), (4, 0)];

struct Shader {
    name: String,
    wgsl: String,
    needs: Needs,
}

/// Every shader that the crate hands to a GPU, in every variant.
fn shaders() -> Vec<Shader> {
    let alone = |name: &str, wgsl: &str| Shader {
        name: name.into(),
        wgsl: wgsl.into(),
        needs: Needs::default(),
    };
    let assembled = encode::shaders()
        .unwrap()
        .into_iter()
        .chain(scan::shaders().expect("texts in order"));
    let assembled = assembled.map(|shader| Shader {
        name: shader.name,
        wgsl: shader.source,
        needs: Needs {
            f16: shader.needs.f16,
            subgroup: shader.needs.subgroup,
            matrix: shader.needs.matrix > 0,
        },
    });
    let mut all: Vec<Shader> = assembled.collect();
    all.push(alone("sentinel", include_str!("../src/gpu/sentinel.wgsl")));
    all.push(alone(
        "import",
        include_str!("../src/gpu/metal/import.wgsl"),
    ));
    all
}

/// What a shader needs of the GPU beyond what all have. Its host code asks the GPU for as much,
/// so validation grants no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    f16: bool,
    subgroup: bool,
    matrix: bool,
}

impl Needs {
    fn capabilities(self) -> Capabilities {
        let mut all = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        all.set(Capabilities::SHADER_FLOAT16, self.f16);
        all.set(Capabilities::SUBGROUP, self.subgroup);
        // Barriers of a subgroup have no counterpart in HLSL: only kernels on matrices, which have
        // none either, may use them.
        all.set(Capabilities::SUBGROUP_BARRIER, self.matrix);
        all.set(Capabilities::COOPERATIVE_MATRIX, self.matrix);
        all
    }
}

/// With all that a shader may need.
fn parse(wgsl: &str) -> Result<(Module, ModuleInfo), String> {
    let all = Needs {
        f16: true,
        subgroup: true,
        matrix: true,
    };
    parse_with(wgsl, all.capabilities())
}

fn parse_with(wgsl: &str, capabilities: Capabilities) -> Result<(Module, ModuleInfo), String> {
    let module = wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator
        .validate(&module)
        .map_err(|error| error.emit_to_string(wgsl))?;
    Ok((module, info))
}

fn to_msl(module: &Module, info: &ModuleInfo, version: (u8, u8)) -> Result<String, String> {
    let options = msl::Options {
        lang_version: version,
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions::default();
    let (text, translated) = msl::write_string(module, info, &options, &pipeline)
        .map_err(|error| format!("MSL {version:?}: {error}"))?;
    for name in translated.entry_point_names {
        name.map_err(|error| format!("MSL {version:?}: {error}"))?;
    }
    Ok(text)
}

fn to_spirv(module: &Module, info: &ModuleInfo) -> Result<Vec<u32>, String> {
    let options = spv::Options {
        lang_version: (1, 3),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..Default::default()
    };
    spv::write_vec(module, info, &options, None).map_err(|error| format!("SPIR-V: {error}"))
}

fn to_hlsl(module: &Module, info: &ModuleInfo) -> Result<String, String> {
    let options = hlsl::Options {
        // The first with half precision; subgroups came with 6.0.
        shader_model: hlsl::ShaderModel::V6_2,
        immediates_target: Some(hlsl::BindTarget::default()),
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
    let translated = writer
        .write(module, info, None)
        .map_err(|error| format!("HLSL: {error}"))?;
    for name in translated.entry_point_names {
        name.map_err(|error| format!("HLSL: {error}"))?;
    }
    Ok(text)
}

/// What a shader breaks of the rules that no compiler checks, in words.
fn complaints(module: &Module, info: &ModuleInfo, workgroup_bytes: u32) -> Vec<String> {
    let mut said = Vec::new();
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let size = |global: &GlobalVariable| layouter[global.ty].size;
    for (index, entry) in module.entry_points.iter().enumerate() {
        let threads: u32 = entry.workgroup_size.iter().product();
        if threads < WORKGROUP_THREADS || !threads.is_multiple_of(64) {
            said.push(format!("{}: workgroups of {threads} threads", entry.name));
        }
        let used = info.get_entry_point(index);
        let globals = || {
            let all = module.global_variables.iter();
            all.filter(|(handle, _)| !used[*handle].is_empty())
                .map(|(_, global)| global)
        };
        let storage = globals().filter(|g| matches!(g.space, AddressSpace::Storage { .. }));
        let storage = storage.count();
        if storage > STORAGE_BUFFERS {
            said.push(format!("{}: {storage} storage buffers", entry.name));
        }
        let shared = globals().filter(|g| g.space == AddressSpace::WorkGroup);
        let shared: u32 = shared.map(size).sum();
        if shared > workgroup_bytes {
            said.push(format!("{}: {shared} bytes shared", entry.name));
        }
        let immediate = globals().filter(|g| g.space == AddressSpace::Immediate);
        let immediate: u32 = immediate.map(size).sum();
        if immediate > IMMEDIATE_BYTES {
            said.push(format!("{}: {immediate} immediate bytes", entry.name));
        }
    }
    for (_, expression) in module.global_expressions.iter() {
        said.extend(not_finite(expression));
    }
    let functions = module.functions.iter().map(|(_, function)| function);
    let entries = module.entry_points.iter().map(|entry| &entry.function);
    let infos = module.functions.iter().map(|(handle, _)| &info[handle]);
    let entry_infos = (0..module.entry_points.len()).map(|index| info.get_entry_point(index));
    for (function, info) in functions.chain(entries).zip(infos.chain(entry_infos)) {
        let name = function.name.as_deref().unwrap_or("a function");
        for (_, expression) in function.expressions.iter() {
            said.extend(not_finite(expression).map(|what| format!("{name}: {what}")));
            let Expression::Binary { op, left, right } = *expression else {
                continue;
            };
            let compares = matches!(op, BinaryOperator::Equal | BinaryOperator::NotEqual);
            let scalar = info[left].ty.inner_with(&module.types).scalar_kind();
            if compares && scalar == Some(ScalarKind::Float) && same(function, left, right) {
                said.push(format!("{name}: a number is compared with itself"));
            }
        }
        let mut emitted = Vec::new();
        unbound_stores(function, &function.body, &mut emitted, &mut said);
    }
    said
}

/// Bits of numbers that are not finite: metal is compiled with fast maths, which takes all numbers
/// for finite and folds tests of them away.
fn not_finite(expression: &Expression) -> Option<String> {
    const BITS: [u32; 6] = [
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0xffc0_0000,
        0x7c00,
        0xfc00,
    ];
    match *expression {
        Expression::Literal(Literal::F16(number)) if !number.is_finite() => {
            Some(format!("the number {number}"))
        }
        Expression::Literal(Literal::F32(number)) if !number.is_finite() => {
            Some(format!("the number {number}"))
        }
        Expression::Literal(Literal::U32(bits)) if BITS.contains(&bits) => {
            Some(format!("bits of what is not finite, {bits:#x}"))
        }
        Expression::Literal(Literal::I32(bits)) if BITS.contains(&(bits as u32)) => {
            Some(format!("bits of what is not finite, {bits:#x}"))
        }
        Expression::Relational {
            fun: RelationalFunction::IsNan | RelationalFunction::IsInf,
            ..
        } => Some("a test for what is not finite".into()),
        _ => None,
    }
}

/// Whether two expressions are the same value, or loads of the same variable.
fn same(function: &Function, left: Handle<Expression>, right: Handle<Expression>) -> bool {
    let expressions = &function.expressions;
    left == right
        || match (&expressions[left], &expressions[right]) {
            (Expression::Load { pointer: a }, Expression::Load { pointer: b }) => {
                same(function, *a, *b)
            }
            (
                Expression::AccessIndex { base: a, index: i },
                Expression::AccessIndex { base: b, index: j },
            ) => i == j && same(function, *a, *b),
            (
                Expression::Access { base: a, index: i },
                Expression::Access { base: b, index: j },
            ) => same(function, *a, *b) && same(function, *i, *j),
            // Every mention of a variable or number is an expression of its own.
            (Expression::GlobalVariable(a), Expression::GlobalVariable(b)) => a == b,
            (Expression::LocalVariable(a), Expression::LocalVariable(b)) => a == b,
            (Expression::FunctionArgument(a), Expression::FunctionArgument(b)) => a == b,
            (Expression::Constant(a), Expression::Constant(b)) => a == b,
            (Expression::Literal(a), Expression::Literal(b)) => a == b,
            _ => false,
        }
}

/// Stores of cooperative matrices whose arguments are not bound by `let`: naga leaves these out of
/// the code, and its SPIR-V writer panics.
fn unbound_stores(
    function: &Function,
    block: &Block,
    emitted: &mut Vec<Handle<Expression>>,
    said: &mut Vec<String>,
) {
    for statement in block {
        match statement {
            Statement::Emit(range) => emitted.extend(range.clone()),
            Statement::CooperativeStore { target, data } => {
                for argument in [*target, data.pointer, data.stride] {
                    let known = function.expressions[argument].needs_pre_emit();
                    if !known && !emitted.contains(&argument) {
                        let name = function.name.as_deref().unwrap_or("a function");
                        said.push(format!("{name}: coopStore of what no `let` binds"));
                    }
                }
            }
            Statement::Block(inner) => unbound_stores(function, inner, emitted, said),
            Statement::If { accept, reject, .. } => {
                unbound_stores(function, accept, emitted, said);
                unbound_stores(function, reject, emitted, said);
            }
            Statement::Switch { cases, .. } => {
                for case in cases {
                    unbound_stores(function, &case.body, emitted, said);
                }
            }
            Statement::Loop {
                body, continuing, ..
            } => {
                unbound_stores(function, body, emitted, said);
                unbound_stores(function, continuing, emitted, said);
            }
            _ => {}
        }
    }
}

/// Runs a check over all shaders and tells all that is wrong at once.
#[track_caller]
fn for_all(check: impl Fn(&Shader, &Module, &ModuleInfo) -> Vec<String>) {
    let shaders = shaders();
    let mut wrong = Vec::new();
    for shader in &shaders {
        let said = match parse_with(&shader.wgsl, shader.needs.capabilities()) {
            Ok((module, info)) => check(shader, &module, &info),
            Err(error) => vec![error],
        };
        wrong.extend(said.iter().map(|what| format!("{}: {what}", shader.name)));
    }
    assert!(!shaders.is_empty());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_shader_keeps_the_rules() {
    for_all(|shader, module, info| {
        let bytes = match shader.name.contains("48 KiB") {
            true => LARGE_WORKGROUP_BYTES,
            false => WORKGROUP_BYTES,
        };
        complaints(module, info, bytes)
    });
    println!("{} shaders keep the rules", shaders().len());
}

#[test]
fn every_shader_becomes_msl_for_macos_12_13_and_26() {
    for_all(|_, module, info| {
        let texts = MSL.map(|version| to_msl(module, info, version));
        texts
            .into_iter()
            .filter_map(|text| match text {
                Ok(text) => (!text.contains("kernel void")).then(|| "MSL without a kernel".into()),
                Err(error) => Some(error),
            })
            .collect()
    });
}

#[test]
fn every_shader_becomes_spirv() {
    for_all(|_, module, info| match to_spirv(module, info) {
        Ok(words) => match words.first() {
            Some(0x0723_0203) => Vec::new(),
            other => vec![format!("SPIR-V that begins with {other:x?}")],
        },
        Err(error) => vec![error],
    });
}

/// But those with cooperative matrices, which naga cannot write in HLSL; wgpu offers them on Metal
/// and Vulkan only.
#[test]
fn every_shader_without_matrices_becomes_hlsl() {
    for_all(|shader, module, info| {
        if shader.needs.matrix {
            return Vec::new();
        }
        match to_hlsl(module, info) {
            Ok(text) if text.contains("numthreads(") => Vec::new(),
            Ok(_) => vec!["HLSL without a kernel".into()],
            Err(error) => vec![error],
        }
    });
}

#[test]
fn every_file_is_a_shader_of_the_list() {
    let all = shaders();
    let mut folders = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/gpu"
    ))];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "wgsl") {
                files += 1;
                // A variant is named after its file, or the file is a part of one and ends up in it.
                let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                let first = text
                    .lines()
                    .find(|line| line.starts_with("fn "))
                    .unwrap_or("");
                let named = |shader: &Shader| shader.name.contains(&stem);
                let holds = |shader: &Shader| !first.is_empty() && shader.wgsl.contains(first);
                assert!(
                    all.iter().any(|shader| named(shader) || holds(shader)),
                    "{} is in no shader of the list",
                    path.display()
                );
            }
        }
    }
    assert!(files >= 2, "{files} files");
}

/// A kernel with something before it and something in it.
fn kernel(before: &str, body: &str) -> String {
    format!(
        "{before}
         @group(0) @binding(0) var<storage, read_write> out: array<f32>;
         @compute @workgroup_size(64)
         fn main(@builtin(local_invocation_index) lane: u32) {{ {body}
         }}"
    )
}

#[track_caller]
fn said_of(wgsl: &str) -> String {
    let (module, info) = parse(wgsl).unwrap();
    complaints(&module, &info, WORKGROUP_BYTES).join("; ")
}

#[test]
fn the_rules_let_a_plain_kernel_through() {
    let shared = "var<workgroup> shared_: array<f32, 8192>;
                  struct Job { a: array<vec4<f32>, 4> } var<immediate> job: Job;";
    let body = "shared_[lane] = out[lane] * job.a[1].x; workgroupBarrier();
                out[lane] = select(shared_[63u - lane], -3.4e38, out[lane] > 1.0);";
    assert_eq!(said_of(&kernel(shared, body)), "");
}

#[test]
fn small_workgroups_are_found() {
    for (size, threads) in [("32", 32), ("96", 96), ("8, 4", 32)] {
        let wgsl = kernel("", "out[lane] = 1.0;")
            .replace("workgroup_size(64)", &format!("workgroup_size({size})"));
        assert_eq!(
            said_of(&wgsl),
            format!("main: workgroups of {threads} threads")
        );
    }
}

#[test]
fn too_many_buffers_and_too_much_memory_are_found() {
    let more: String = (1..9)
        .map(|i| format!("@group(0) @binding({i}) var<storage> in{i}: array<f32>;"))
        .collect();
    let sum: Vec<String> = (1..9).map(|i| format!("in{i}[lane]")).collect();
    let body = format!("out[lane] = {};", sum.join(" + "));
    assert_eq!(said_of(&kernel(&more, &body)), "main: 9 storage buffers");
    let unused = kernel(&more, "out[lane] = in1[lane] + in7[lane];");
    assert_eq!(said_of(&unused), "", "what is not used does not count");

    let shared = "var<workgroup> a: array<f32, 8192>; var<workgroup> b: u32;";
    let body = "a[lane] = 1.0; b = lane; workgroupBarrier(); out[lane] = a[0] + f32(b);";
    assert_eq!(said_of(&kernel(shared, body)), "main: 32772 bytes shared");

    let job = "struct Job { a: array<vec4<f32>, 4>, b: u32 } var<immediate> job: Job;";
    let body = "out[lane] = job.a[0].x + f32(job.b);";
    assert_eq!(said_of(&kernel(job, body)), "main: 80 immediate bytes");
}

#[test]
fn numbers_that_are_not_finite_and_tests_for_them_are_found() {
    let low = "const LOW: u32 = 0xff800000u;";
    for (before, body, found) in [
        (low, "out[lane] = bitcast<f32>(LOW + lane);", "not finite"),
        (
            "",
            "let bits = bitcast<u32>(out[lane]); if (bits & 0x7f800000u) == 0x7f800000u { out[lane] = 0.0; }",
            "main: bits of what is not finite, 0x7f800000",
        ),
        (
            "",
            "let x = out[lane]; if x != x { out[lane] = 0.0; }",
            "main: a number is compared with itself",
        ),
        (
            "",
            "var x = out[lane]; x += 1.0; if !(x == x) { out[lane] = 0.0; }",
            "main: a number is compared with itself",
        ),
        (
            "",
            "if out[lane] != out[lane] { out[lane] = 0.0; }",
            "main: a number is compared with itself",
        ),
    ] {
        let said = said_of(&kernel(before, body));
        assert!(said.contains(found), "{body}: {said:?}");
    }
    // Whole numbers may be compared with themselves, and other variables with each other.
    let fine = "let i = lane; if i != i { out[lane] = 0.0; }
                if out[lane] != out[lane + 1u] { out[lane] = 1.0; }";
    assert_eq!(said_of(&kernel("", fine)), "");
    // Infinities written out do not get past validation.
    let infinite = kernel("", "out[lane] = 1.0e39;");
    assert!(parse(&infinite).is_err());
    let infinite = kernel("enable f16;", "out[lane] = f32(70000.0h);");
    assert!(parse(&infinite).is_err());
}

/// A product of two 8 x 8 squares; `store` writes it.
fn product(store: &str) -> String {
    let before = "enable f16; enable wgpu_cooperative_matrix;
        @group(0) @binding(1) var<storage> in: array<f16>;
        struct Job { stride: u32 } var<immediate> job: Job;";
    let body = format!(
        "let a = coopLoad<coop_mat8x8<f16, A>>(&in[0], job.stride);
         let b = coopLoad<coop_mat8x8<f16, B>>(&in[64], job.stride);
         var sum = coop_mat8x8<f32, C>();
         sum = coopMultiplyAdd(a, b, sum);
         {store}"
    );
    kernel(before, &body)
}

#[test]
fn stores_of_matrices_with_loose_arguments_are_found() {
    let bound = product(
        "let value = sum; let to = &out[0]; let stride = job.stride; coopStore(value, to, stride);",
    );
    assert_eq!(said_of(&bound), "");
    let (module, info) = parse(&bound).unwrap();
    assert!(to_spirv(&module, &info).is_ok());
    // A store of a variable does not even pass validation; the others do, and naga then panics or
    // leaves the sum out.
    for (loose, found) in [
        (
            "let to = &out[0]; let stride = job.stride; coopStore(sum, to, stride);",
            "before it was introduced",
        ),
        (
            "let value = sum; let stride = job.stride; coopStore(value, &out[0], stride);",
            "main: coopStore of what no `let` binds",
        ),
        (
            "let value = sum; let to = &out[0];
             if lane < 64u { coopStore(value, to, job.stride); }",
            "main: coopStore of what no `let` binds",
        ),
    ] {
        let said = match parse(&product(loose)) {
            Ok((module, info)) => complaints(&module, &info, WORKGROUP_BYTES).join("; "),
            Err(error) => error,
        };
        assert!(said.contains(found), "{loose}: {said:?}");
    }
}

/// wgpu offers cooperative matrices from MSL 2.3 on, that is macOS 11; older Macs get the other
/// variants. Subgroups need 2.1 on a Mac.
#[test]
fn matrices_need_msl_2_3() {
    let wgsl = product(
        "let value = sum; let to = &out[0]; let stride = job.stride; coopStore(value, to, stride);",
    );
    let (module, info) = parse(&wgsl).unwrap();
    assert!(to_msl(&module, &info, (2, 2)).is_err());
    for version in [(2, 3), (2, 4), (3, 0), (4, 0)] {
        let text = to_msl(&module, &info, version).unwrap();
        assert!(text.contains("simdgroup_float8x8"), "{text}");
    }
}

#[test]
fn what_a_shader_does_not_ask_for_it_does_not_get() {
    let all = Needs {
        f16: true,
        subgroup: true,
        matrix: true,
    };
    let needs = |wgsl: &str, what: Capabilities| {
        let all = all.capabilities();
        assert!(parse_with(wgsl, all).is_ok());
        assert!(all.contains(what));
        assert!(parse_with(wgsl, all - what).is_err(), "{wgsl}");
    };
    let subgroup = kernel("", "out[lane] = subgroupAdd(out[lane]);");
    needs(&subgroup, Capabilities::SUBGROUP);
    let f16 = kernel("enable f16;", "out[lane] = f32(f16(out[lane]));");
    needs(&f16, Capabilities::SHADER_FLOAT16);
    needs(&product(""), Capabilities::COOPERATIVE_MATRIX);
    let job = kernel("var<immediate> job: u32;", "out[lane] = f32(job);");
    needs(&job, Capabilities::IMMEDIATES);
    let barrier = kernel("", "subgroupBarrier(); out[lane] = 1.0;");
    let without = Needs {
        matrix: false,
        ..all
    };
    assert!(parse_with(&barrier, without.capabilities()).is_err());
}

#[test]
fn there_is_a_shader_of_every_kind_for_gpus_that_have_nothing_more() {
    let all = shaders();
    let plain = all.iter().filter(|shader| shader.needs == Needs::default());
    let plain: Vec<&str> = plain.map(|shader| shader.name.as_str()).collect();
    let encoder = ["embed", "norm", "pool", "attention", "product"];
    let search = ["scan Few", "scan Norms", "scan Coarse"];
    for kind in encoder.into_iter().chain(search) {
        let found = plain.iter().any(|name| name.starts_with(kind));
        assert!(found, "{kind} is not among {plain:?}");
    }
}
