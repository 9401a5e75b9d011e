/*
 * Runs wsi-nuclei on the open image and adds its nuclei as detections. QuPath 0.5 or later, in a project.
 *
 * Selected annotations are the region: nuclei outside them are not looked for, and detections inside them are replaced.
 * With nothing selected the whole slide is done and all detections are replaced. What was done before is not done again.
 * Results lie in PROJECT/wsi-nuclei/.
 */
import groovy.json.JsonSlurper
import qupath.lib.common.GeneralTools
import qupath.lib.io.PathIO

// Full path where QuPath's PATH has no wsi-nuclei: the one that `which wsi-nuclei` prints in a terminal.
def program = "wsi-nuclei"
// Flags of `wsi-nuclei run --help`, such as ["--model", "/models/mine", "--memory", "8GiB"].
def flags = []

def server = getCurrentServer()
def slide = GeneralTools.toPath(server.getURIs()[0])
if (slide == null)
    throw new IllegalStateException("wsi-nuclei reads files; this image is at ${server.getURIs()[0]}")
def regions = getSelectedObjects().findAll { it.isAnnotation() && it.hasROI() && it.getROI().isArea() }

// Another region is another result, in another folder.
def name = GeneralTools.getNameWithoutExtension(server.getMetadata().getName()).replaceAll(/[^\w.-]+/, "_")
def work = buildFilePath(PROJECT_BASE_DIR, "wsi-nuclei")
mkdirs(work)
def command = [program, "run", slide.toString(), "--format", "csv,parquet,geojson,report", "--progress", "json"] + flags
if (regions) {
    def roi = new File(work, "${name}.roi.geojson")
    exportObjectsToGeoJson(regions, roi.path, "FEATURE_COLLECTION")
    def shapes = regions.collect { it.getROI().getGeometry().toText() }.sort().join("\n")
    name += "-" + UUID.nameUUIDFromBytes(shapes.bytes).toString().take(8)
    command += ["--roi", roi.path]
}
// The scale that the user set in QuPath counts where the file has none.
def calibration = server.getPixelCalibration()
def original = server.getOriginalMetadata().getPixelCalibration()
if (calibration.hasPixelSizeMicrons() && !original.hasPixelSizeMicrons())
    command += ["--mpp", calibration.getAveragedPixelSizeMicrons().toString()]
def out = new File(work, name)
command += ["--output", out.path]

println command.join(" ")
def process = new ProcessBuilder(command as List<String>).redirectErrorStream(true).start()
process.outputStream.close()
def errors = []
def lastWords = ""
process.inputStream.eachLine("UTF-8") { line ->
    def event = line.startsWith("{") ? new JsonSlurper().parseText(line) : [event: "error", message: line]
    if (event.event == "progress")
        println String.format("%.1f of %.1f mm², %d nuclei", event.mm2_done as double, event.mm2 as double, event.nuclei as long)
    else if (event.message)
        println event.message
    if (event.event == "error")
        errors << event.message
    if (event.message)
        lastWords = event.message
}
def code = process.waitFor()
if (code != 0)
    throw new RuntimeException("wsi-nuclei ended with code ${code}: ${errors ? errors.join('; ') : lastWords}")

def found = out.listFiles().findAll { new File(it, "nuclei.geojson").isFile() }
if (found.size() != 1)
    throw new RuntimeException("${out} holds ${found.size()} results, not one: remove it and run again")
def nuclei = PathIO.readObjects(new File(found[0], "nuclei.geojson"))
def inRegion = { object ->
    regions.any { it.getROI().contains(object.getROI().getCentroidX(), object.getROI().getCentroidY()) }
}
removeObjects(getDetectionObjects().findAll { !regions || inRegion(it) }, false)
addObjects(nuclei)
resolveHierarchy()
println "${nuclei.size()} nuclei; report: ${new File(found[0], 'report.html')}"
