//! `#[test]` as `tests/it` has it: it enters the function into the list of `tests/it/harness.rs`.

use proc_macro::{TokenStream, TokenTree};

#[proc_macro_attribute]
pub fn test(_: TokenStream, mut function: TokenStream) -> TokenStream {
    let words = |token| if let TokenTree::Ident(word) = token { Some(word.to_string()) } else { None };
    let mut words = function.clone().into_iter().filter_map(words);
    let (Some("fn"), Some(name)) = (words.next().as_deref(), words.next()) else {
        return rust("compile_error!(\"a test is a plain `fn name()`\");");
    };
    function.extend(rust(&format!(
        "inventory::submit! {{ crate::harness::Test {{ path: concat!(module_path!(), \"::{name}\"), run: {name} }} }}"
    )));
    function
}

fn rust(text: &str) -> TokenStream {
    text.parse().expect("it is Rust")
}
