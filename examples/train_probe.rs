use wsi_nuclei::train::{
    config::TrainConfig,
    run::{TrainJob, run},
};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    tracing_subscriber::fmt().init();
    tch::set_num_threads(a[6].parse().unwrap());
    let job = TrainJob {
        config: TrainConfig::read(a[1].as_ref()).unwrap(),
        data_root: a[2].clone().into(),
        encoder: a[3].clone().into(),
        out: a[4].clone().into(),
        steps: a[5].parse().unwrap(),
        checkpoint_every: 100,
        bf16: a[7] == "bf16",
    };
    run(&job).unwrap();
}
