//! What the parser says about texts that are none: line, column, expected, found.

use terrace_compiler::text::parse;

/// The message for a graph of these lines; the first of them is line 3.
#[track_caller]
fn expect(lines: &str, message: &str) {
    let text = format!("mesh <cfg=1 ring=1 ulysses=2>\ngraph g stage=sharded {{\n{lines}\n}}\n");
    expect_text(&text, message);
}

#[track_caller]
fn expect_text(text: &str, message: &str) {
    match parse(text) {
        Ok(graph) => panic!("parsed as {graph}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

const X: &str = r#"%0 = input "x" host=[b=2, c=8] : f32[b=2, c=8] @{}"#;

#[test]
fn of_the_header() {
    expect_text(
        "",
        "line 1, column 1: expected `mesh`, found the end of the text",
    );
    expect_text(
        "mesh <cfg=1 ring=0 ulysses=2>\n",
        "line 1, column 7: expected between one and 2^32 ranks, found cfg=1 ring=0 ulysses=2",
    );
    expect_text(
        "mesh <cfg=1 ring=4000000000 ulysses=2>\n",
        "line 1, column 7: expected between one and 2^32 ranks, found cfg=1 ring=4000000000 ulysses=2",
    );
    expect_text(
        "mesh <cfg=1 ulysses=2>",
        "line 1, column 13: expected `ring=`, found `ulysses`",
    );
    let mesh = "mesh <cfg=1 ring=1 ulysses=1>\n";
    expect_text(
        &format!("{mesh}graph g stage=late {{\n"),
        "line 2, column 15: expected `model` or `fused` or `sharded` or `comm` or `scheduled` or `local`, found `late`",
    );
    expect_text(
        &format!("{mesh}graph g stage=model {{\n"),
        "line 3, column 1: expected `%0` or `}`, found the end of the text",
    );
    expect_text(
        &format!("{mesh}graph g stage=model {{\n}}\ngraph h"),
        "line 4, column 1: expected the end of the text, found `graph`",
    );
    expect_text(
        &format!("{mesh}graph g stage=model {{\n  slices all {{}}\n}}\n"),
        "line 3, column 10: expected `rows` or `heads`, found `all`",
    );
}

#[test]
fn of_numbers_and_ops() {
    expect(
        "%1 = rope",
        "line 3, column 1: expected `%0` or `}`, found `%1`",
    );
    expect(
        "%0 = twist",
        "line 3, column 6: expected an op, found `twist`",
    );
    expect("%0 = 7", "line 3, column 6: expected an op, found `7`");
    expect(
        &format!("{X}\n%1 = activate %1 silu : f32[c=8] @{{}}"),
        "line 4, column 15: expected a node before `%1`, found `%1`",
    );
    expect(
        &format!("{X}\n%1 = activate % silu : f32[c=8] @{{}}"),
        "line 4, column 15: expected a node before `%1`, found `%`",
    );
}

#[test]
fn of_attributes() {
    expect(
        &format!("{X}\n%1 = activate %0 relu : f32[b=2, c=8] @{{}}"),
        "line 4, column 18: expected `silu` or `gelu_tanh` or `gelu`, found `relu`",
    );
    expect(
        &format!("{X}\n%1 = norm %0 eps=1e-5 kind=rms : f32[b=2, c=8] @{{}}"),
        "line 4, column 14: expected `kind`, found `eps`",
    );
    expect(
        &format!("{X}\n%1 = norm %0 kind=rms eps=small : f32[b=2, c=8] @{{}}"),
        "line 4, column 27: expected a number, found `small`",
    );
    expect(
        &format!("{X}\n%1 = take %0 c start=0 count=-1 : f32[b=2, c=8] @{{}}"),
        "line 4, column 30: expected a whole number below 2^32, found `-1`",
    );
    expect(
        &format!("{X}\n%1 = take %0 c start=0 count=4294967296 : f32[b=2, c=8] @{{}}"),
        "line 4, column 30: expected a whole number below 2^32, found `4294967296`",
    );
    expect(
        &format!("{X}\n%1 = rope %0 %0 table : f32[b=2, c=8] @{{}}"),
        "line 4, column 17: expected `:` or an attribute, found `table`",
    );
    expect(
        r#"%0 = weight layout=plain from=["w" [2 2]] : f32[o=4] @{}"#,
        "line 3, column 39: expected `,`, found `2`",
    );
    expect(
        r#"%0 = weight layout=plain from=["w"] : f32[o=4] @{}"#,
        "line 3, column 35: expected `or` or a shape like `[8, 4]`, found `]`",
    );
    expect(
        r#"%0 = weight layout=plain from=["w" [4000000000, 4000000000]] : f32[o=4] @{}"#,
        "line 3, column 36: expected a shape of fewer than 2^48 elements, found [4000000000, 4000000000]",
    );
    expect(
        &format!("{X}\n%1 = conv3d %0 %0 out=[c=8] kernel=[3, 3] : f32[c=8] @{{}}"),
        "line 4, column 36: expected three numbers, found 2",
    );
    expect(
        "%0 = input \"x\n",
        "line 3, column 12: expected a name in quotes, found a quotation without end",
    );
}

#[test]
fn of_types() {
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, c=4] @{{}}"),
        "line 4, column 23: expected f32[b=2, c=8], which activate infers, found f32[b=2, c=4]",
    );
    expect(
        &format!("{X}\n%1 = take %0 c start=4 count=8 : f32[b=2, c=8] @{{}}"),
        "line 4, column 6: expected take of a range within c=8, found 4..12",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu"),
        "line 4, column 22: expected `:` or an attribute, found the end of the line",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu : f64[b=2, c=8]"),
        "line 4, column 25: expected `f32` or `f16` or `bf16` or `u32` or `i8` or `f8e4m3`, found `f64`",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, seq=(txt | t=1)]"),
        "line 4, column 43: expected `=`, found `|`",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, seq=()]"),
        "line 4, column 39: expected a factor like `h=30`, found `)`",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=4000000000, c=4000000000]"),
        "line 4, column 25: expected a type of fewer than 2^48 elements, found f32[b=4000000000, c=4000000000]",
    );
}

#[test]
fn of_cuts() {
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, c=8] @{{c: tp[0 8]}}"),
        "line 4, column 44: expected `cfg` or `ring` or `ulysses`, found `tp`",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, c=8] @{{c: ring[0 8], c: cfg[0 8]}}"),
        "line 4, column 55: expected a group once, found `c` again",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, c=8] @{{c: ring[0 8]>1}}"),
        "line 4, column 54: expected `>`, found `1`",
    );
    expect(
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, c=8] @{{}} late"),
        "line 4, column 43: expected the end of the line, found `late`",
    );
}

#[test]
fn columns_count_characters() {
    expect(
        r#"%0 = input "ä€" host : f32[] @{}"#,
        "line 3, column 17: expected `host=`, found `host`",
    );
}

#[test]
fn spaces_and_empty_lines_do_not_matter() {
    let text = "\n  mesh<cfg=1 ring=1 ulysses=1>\n\n graph g stage=model{\n\n%0=input \"x\"host=[c=8]:f32[c=8]\n\t}\n\n";
    let graph = parse(text).unwrap();
    assert_eq!(
        graph.to_string(),
        "mesh <cfg=1 ring=1 ulysses=1>\ngraph g stage=model {\n  %0 = input \"x\" host=[c=8] : f32[c=8] @{}\n}\n"
    );
}
