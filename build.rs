//! Writes the folders of libtorch and OpenSlide into the binary (rpath), so that it starts from any directory
//! without an environment variable, and embeds the default model where weights/default holds one.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=WSI_NUCLEI_OPENSLIDE_LIB");
    // An installed copy finds its libraries beside itself; a built one where they were at build time.
    rpath("$ORIGIN/../lib");
    let folder = |feature: &str, variable: &str| {
        let is_on = env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
        env::var(variable).ok().filter(|_| is_on)
    };
    if let Some(libtorch) = folder("TORCH", "LIBTORCH") {
        rpath(&Path::new(&libtorch).join("lib").display().to_string());
    }
    if let Some(openslide) = folder("OPENSLIDE", "WSI_NUCLEI_OPENSLIDE_LIB") {
        rpath(&openslide);
    }
    // torch-sys names libtorch_cuda.so where it exists; a library that no symbol needs must not be loaded.
    println!("cargo:rustc-link-arg=-Wl,--as-needed");
    embed_default_model()
}

fn rpath(folder: &str) {
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}

/// Writes embedded_model.rs: model.toml and weights of weights/default, or none.
fn embed_default_model() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let folder = root.join("weights/default");
    let (spec, weights) = (folder.join("model.toml"), folder.join("model.safetensors"));
    let found = spec.is_file() && weights.is_file();
    // A path that does not exist would make every build run this again.
    let watched = [folder, root.join("weights")];
    if let Some(existing) = watched.iter().find(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", existing.display());
    }
    let value = if found {
        format!("Some((include_str!({spec:?}), include_bytes!({weights:?})))")
    } else {
        "None".to_string()
    };
    let code = format!(
        "/// model.toml and weights of the default model, where the build had them.\n\
         static EMBEDDED_MODEL: Option<(&str, &[u8])> = {value};\n"
    );
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("embedded_model.rs"),
        code,
    )?;
    Ok(())
}
