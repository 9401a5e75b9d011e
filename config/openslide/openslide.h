/* Declarations of the OpenSlide 4 functions that openslide-rs calls.
 * Facts about a public interface, written for this build: the PyPI package
 * `openslide-bin` carries the library but no header. It includes nothing, so
 * bindgen needs no compiler headers either. */
#ifndef WSI_NUCLEI_OPENSLIDE_H
#define WSI_NUCLEI_OPENSLIDE_H

typedef signed long int64_t;
typedef signed int int32_t;
typedef unsigned int uint32_t;
typedef unsigned long size_t;

typedef struct _openslide openslide_t;
typedef struct _openslide_cache openslide_cache_t;

const char *openslide_get_version(void);
const char *openslide_detect_vendor(const char *filename);
openslide_t *openslide_open(const char *filename);
void openslide_close(openslide_t *osr);
const char *openslide_get_error(openslide_t *osr);

int32_t openslide_get_level_count(openslide_t *osr);
void openslide_get_level_dimensions(openslide_t *osr, int32_t level, int64_t *w, int64_t *h);
double openslide_get_level_downsample(openslide_t *osr, int32_t level);
int32_t openslide_get_best_level_for_downsample(openslide_t *osr, double downsample);
void openslide_read_region(openslide_t *osr, uint32_t *dest, int64_t x, int64_t y,
                           int32_t level, int64_t w, int64_t h);

const char *const *openslide_get_property_names(openslide_t *osr);
const char *openslide_get_property_value(openslide_t *osr, const char *name);

int64_t openslide_get_icc_profile_size(openslide_t *osr);
void openslide_read_icc_profile(openslide_t *osr, void *dest);

const char *const *openslide_get_associated_image_names(openslide_t *osr);
void openslide_get_associated_image_dimensions(openslide_t *osr, const char *name,
                                               int64_t *w, int64_t *h);
void openslide_read_associated_image(openslide_t *osr, const char *name, uint32_t *dest);
int64_t openslide_get_associated_image_icc_profile_size(openslide_t *osr, const char *name);
void openslide_read_associated_image_icc_profile(openslide_t *osr, const char *name, void *dest);

openslide_cache_t *openslide_cache_create(size_t capacity);
void openslide_cache_release(openslide_cache_t *cache);
void openslide_set_cache(openslide_t *osr, openslide_cache_t *cache);

#endif
