/*
 * Writes labelled images for `wsi-nuclei data check` and `train`. QuPath 0.5 or later, in a project.
 *
 * Draw rectangles of class "Region" around fields in which every nucleus is outlined and has its class. Each becomes
 * PROJECT/wsi-nuclei-labels/IMAGE_N.png with IMAGE_N.geojson beside it, in the pixels of the .png. Outlines that stick
 * out of a field are cut at its border; those of which less than half lies inside are left out.
 */
import java.awt.geom.AffineTransform
import qupath.lib.common.GeneralTools
import qupath.lib.objects.PathObjectTools
import qupath.lib.objects.PathObjects
import qupath.lib.regions.RegionRequest
import qupath.lib.roi.GeometryTools

// Class of the rectangles, and µm per pixel of the images.
def regionClass = "Region"
def mpp = 0.25

def server = getCurrentServer()
def calibration = server.getPixelCalibration()
if (!calibration.hasPixelSizeMicrons())
    throw new IllegalStateException("the image has no pixel size: set it under Image > Set pixel size")
def downsample = mpp / calibration.getAveragedPixelSizeMicrons()
if (downsample < 1) {
    downsample = 1.0
    mpp = calibration.getAveragedPixelSizeMicrons()
}

def isRegion = { it.isAnnotation() && it.getPathClass()?.getName() == regionClass }
def regions = getAnnotationObjects().findAll(isRegion)
if (!regions)
    throw new IllegalStateException("no annotation of class ${regionClass}: draw rectangles around labelled fields")
def drawn = (getAnnotationObjects() + getDetectionObjects()).findAll { !isRegion(it) && it.hasROI() && it.getROI().isArea() }

def folder = buildFilePath(PROJECT_BASE_DIR, "wsi-nuclei-labels")
mkdirs(folder)
def name = GeneralTools.getNameWithoutExtension(server.getMetadata().getName()).replaceAll(/[^\w.-]+/, "_")
regions.eachWithIndex { region, i ->
    def field = region.getROI()
    def request = RegionRequest.createInstance(server.getPath(), downsample, field)
    def border = GeometryTools.createRectangle(request.getX(), request.getY(), request.getWidth(), request.getHeight())
    def toImage = AffineTransform.getScaleInstance(1 / downsample, 1 / downsample)
    toImage.translate(-request.getX(), -request.getY())
    def labels = drawn.collect { object ->
        def whole = object.getROI().getGeometry()
        if (!whole.intersects(border))
            return null
        def inside = whole.intersection(border)
        if (inside.isEmpty() || inside.getArea() * 2 < whole.getArea())
            return null
        def roi = GeometryTools.geometryToROI(inside, object.getROI().getImagePlane())
        PathObjectTools.transformObject(PathObjects.createAnnotationObject(roi, object.getPathClass()), toImage, false)
    }.findAll { it != null }
    def stem = buildFilePath(folder, "${name}_${i + 1}")
    writeImageRegion(server, request, "${stem}.png")
    exportObjectsToGeoJson(labels, "${stem}.geojson", "FEATURE_COLLECTION")
    println "${stem}.png: ${labels.size()} nuclei"
}
println String.format("next: wsi-nuclei data check %s --mpp %.4f -o look", folder, mpp as double)
