process WSINUCLEI_RUN {
    tag "$meta.id"
    label 'process_high'

    conda "${moduleDir}/../environment.yml"
    container "${ params.wsinuclei_image ?: 'wsi-nuclei:latest' }"

    input:
    tuple val(meta), path(slide)

    output:
    tuple val(meta), path("results/*/nuclei.parquet"), emit: nuclei
    tuple val(meta), path("results/*/summary.json")  , emit: summary
    tuple val(meta), path("results/*/report.html")   , emit: report, optional: true
    path "versions.yml"                              , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    // nf-core starts 130 to 145 again; 75 is "stopped on request, run again".
    """
    wsi-nuclei run ${slide} -o results --threads ${task.cpus} --memory ${(task.memory.toMega() * 0.6) as int}MiB \\
        ${args} || { code=\$?; [ \$code -eq 75 ] && exit 140; exit \$code; }

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        wsi-nuclei: \$(wsi-nuclei --version | cut -d' ' -f2)
    END_VERSIONS
    """

    stub:
    """
    mkdir -p results/${meta.id}
    touch results/${meta.id}/nuclei.parquet results/${meta.id}/summary.json results/${meta.id}/report.html

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        wsi-nuclei: stub
    END_VERSIONS
    """
}
