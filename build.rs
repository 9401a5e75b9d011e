//! Writes the folders of libtorch and OpenSlide into the binary (rpath), so that it
//! starts from any directory without an environment variable.

use std::{env, path::Path};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=WSI_NUCLEI_OPENSLIDE_LIB");
    // An installed copy finds its libraries beside itself; a built one where they were at build time.
    rpath("$ORIGIN/../lib");
    if let Ok(libtorch) = env::var("LIBTORCH") {
        rpath(&Path::new(&libtorch).join("lib").display().to_string());
        rpath(
            &Path::new(&libtorch)
                .join("../nvidia/cu13/lib")
                .display()
                .to_string(),
        );
    }
    if let Ok(openslide) = env::var("WSI_NUCLEI_OPENSLIDE_LIB") {
        rpath(&openslide);
    }
    println!("cargo:rustc-link-arg=-Wl,--as-needed");
}

fn rpath(folder: &str) {
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}
