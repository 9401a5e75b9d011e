//! Slides from paths and manifests: what is read, what is refused and with which words.

use super::*;

fn config(dedupe_names: bool) -> RunConfig {
    RunConfig {
        dedupe_names,
        ..RunConfig::default()
    }
}

fn touch(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
    }
}

fn stems(slides: &[SlideConfig]) -> Vec<&str> {
    slides.iter().map(|slide| slide.stem.as_str()).collect()
}

#[test]
fn folders_are_searched_sorted_and_deep_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    touch(
        dir.path(),
        &["b.svs", "a.SVS", "notes.txt", ".hidden.svs", "deep/c.tiff"],
    );
    let flat = from_paths(
        &[dir.path().into()],
        false,
        slide_extensions(),
        &config(false),
    )
    .unwrap();
    assert_eq!(stems(&flat), ["a", "b"]);
    let deep = from_paths(
        &[dir.path().into()],
        true,
        slide_extensions(),
        &config(false),
    )
    .unwrap();
    assert_eq!(stems(&deep), ["a", "b", "c"]);
    assert_eq!(deep[2].folder, Path::new("out/c"));
}

#[test]
fn an_empty_folder_is_an_error_that_says_what_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let error = from_paths(
        &[dir.path().into()],
        false,
        slide_extensions(),
        &config(false),
    )
    .unwrap_err();
    assert!(error.to_string().contains(".svs") && error.to_string().contains("-r"));
}

#[test]
fn one_stem_twice_is_refused_unless_names_are_made_unique() {
    let dir = tempfile::tempdir().unwrap();
    touch(dir.path(), &["a/x.svs", "b/x.tif"]);
    let paths = [dir.path().join("a/x.svs"), dir.path().join("b/x.tif")];
    let error = from_paths(&paths, false, slide_extensions(), &config(false)).unwrap_err();
    assert!(error.to_string().contains("--dedupe-names"));
    let slides = from_paths(&paths, false, slide_extensions(), &config(true)).unwrap();
    assert_ne!(slides[0].stem, slides[1].stem);
    assert!(slides.iter().all(|s| s.stem.len() == "x-".len() + 8));
    let same = [paths[0].clone(), dir.path().join("b/../a/x.svs")];
    assert_eq!(
        from_paths(&same, false, slide_extensions(), &config(false))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn stems_never_leave_the_output_folder() {
    for (name, stem) in [
        ("..", "slide"),
        ("../../x", ".._.._x"),
        (".hid", "hid"),
        ("a:b\n", "a_b_"),
        ("", "slide"),
    ] {
        let got = sanitised(name);
        assert!(!got.contains('/') && !got.starts_with('.'), "{got}");
        if name != "../../x" {
            assert_eq!(got, stem);
        }
    }
    assert_eq!(sanitised("CMU-1 (größer).v2"), "CMU-1 (größer).v2");
}

#[test]
fn a_manifest_gives_names_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    touch(dir.path(), &["a/x.svs", "b/x.svs", "m.png"]);
    let file = dir.path().join("cohort.csv");
    fs::write(
        &file,
        "path,id,mpp,mask,roi,model\na/x.svs,one,0.5,m.png,,\n\"b/x.svs\",two,,none,,other\n",
    )
    .unwrap();
    let slides = from_manifest(&file, &config(false)).unwrap();
    assert_eq!(stems(&slides), ["one", "two"]);
    assert_eq!(
        (slides[0].mpp, slides[0].mpp_from),
        (Some(0.5), Some("manifest"))
    );
    assert_eq!(slides[0].mask, MaskChoice::File(dir.path().join("m.png")));
    assert_eq!(slides[0].path, dir.path().join("a/x.svs"));
    assert_eq!((&slides[1].mask, slides[1].mpp), (&MaskChoice::None, None));
    assert_eq!(slides[1].model, "other");
}

#[test]
fn other_columns_of_a_manifest_are_kept_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cohort.csv");
    let text = "patient,path,task,id,age\nP1,x.svs,train,one,63\n\"P, 2\",y.svs,,two,\n";
    fs::write(&file, text).unwrap();
    let slides = from_manifest(&file, &config(false)).unwrap();
    let kept = |slide: &SlideConfig| -> Vec<String> {
        let pairs = slide.manifest.iter();
        pairs.map(|(name, cell)| format!("{name}={cell}")).collect()
    };
    assert_eq!(kept(&slides[0]), ["patient=P1", "task=train", "age=63"]);
    assert_eq!(kept(&slides[1]), ["patient=P, 2", "task=", "age="]);
}

#[test]
fn a_manifests_mistakes_are_named_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cohort.csv");
    let mistake = |text: &str| {
        fs::write(&file, text).unwrap();
        from_manifest(&file, &config(false))
            .unwrap_err()
            .to_string()
    };
    assert!(mistake("slide\nx\n").contains("line 1: no column `path`"));
    assert!(mistake("path,mpp\nx.svs,\ny.svs,fast\n").contains("line 3: mpp `fast`"));
    assert!(mistake("path,id\nx.svs,../up\n").contains("line 2: id `../up`"));
    assert!(mistake("path,mask\nx.svs,none.png\n").contains("line 2: mask"));
    let huge = format!("path\n{}\n", "a".repeat(1 << 20));
    assert!(mistake(&huge).contains("line 2: is longer than 65536 bytes"));
    for slip in [
        "Path,path",
        "path,MPP",
        "path,maks",
        "path,masks",
        "path,modl",
    ] {
        let said = mistake(&format!("{slip}\nx.svs,\n"));
        assert!(
            said.contains("line 1") && said.contains("did you mean"),
            "{said}"
        );
    }
    assert!(mistake("path,a,a\nx.svs,1,2\n").contains("a name of its own"));
    assert!(mistake("path,id\nx.svs\n").contains("line 2"));
    assert!(mistake("path\n").contains("no slides"));
}
