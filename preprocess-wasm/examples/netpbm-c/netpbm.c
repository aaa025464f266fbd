/* An example of a model's own preprocessing in C: it takes binary PGM (P5) and PPM (P6) images of 8 bits, and nothing else.
 *
 * It is compiled without a C library, imports nothing, and follows the canonical ABI by hand: an export of the interface
 * `convoy:preprocess/images` takes its parameters one by one and returns the address of a struct that lies as below
 * (component-model, CanonicalABI.md). An instance lives for one image, so nothing is ever freed. */

#include <stdint.h>

#define INTERFACE "convoy:preprocess/images@0.2.0#"
#define EXPORT(name) __attribute__((export_name(name)))
#define PAGE 65536u

struct text { const char *bytes; uint32_t length; };

enum error_kind { NOT_AN_IMAGE, UNSUPPORTED_FORMAT, TRUNCATED, CORRUPT, TOO_MANY_PIXELS, OUT_OF_MEMORY, INVALID_OPTIONS };
struct error {
    uint8_t kind;
    union { struct text text; struct { uint32_t width, height; } size; };
};

struct image_info { uint32_t width, height; struct text format, mode; };
struct probe_result { uint8_t is_error; union { struct image_info ok; struct error error; }; };

struct placement { float x_min, y_min, x_max, y_max; };
struct features { double mean, std; uint8_t min, max; };
struct image_tensor { const uint8_t *pixels; uint32_t length; struct placement placement; struct features features; };
struct tensor_result { uint8_t is_error; union { struct image_tensor ok; struct error error; }; };

_Static_assert(sizeof(struct probe_result) == 28 && sizeof(struct tensor_result) == 56, "the canonical ABI's layout");

enum fit { STRETCH };
enum color { RGB, BGR, GRAY };

/* Memory is handed out from the end of the program's own on, and grown as it is needed. */
extern unsigned char __heap_base;
static uintptr_t next_free;

EXPORT("cabi_realloc")
void *cabi_realloc(void *old, uint32_t old_size, uint32_t align, uint32_t size) {
    uint64_t start = next_free ? next_free : (uintptr_t)&__heap_base;
    start = (start + align - 1) / align * align;
    uint64_t end = start + size, there = (uint64_t)__builtin_wasm_memory_size(0) * PAGE;
    /* The host copies into what is returned: without memory there is nothing to return. */
    if (end > there && __builtin_wasm_memory_grow(0, (end - there + PAGE - 1) / PAGE) == (unsigned long)-1)
        __builtin_trap();
    next_free = (uintptr_t)end;
    for (uint32_t at = 0; old && at < old_size && at < size; at++)
        ((uint8_t *)start)[at] = ((uint8_t *)old)[at];
    return (void *)(uintptr_t)start;
}

/* What `probe` was given: pixels begin at `pixels`. */
static const uint8_t *pixels;
static uint32_t width, height, channels;

static struct text text(const char *bytes) {
    uint32_t length = 0;
    while (bytes[length])
        length++;
    return (struct text){bytes, length};
}

static struct error complaint(enum error_kind kind, const char *words) {
    return (struct error){.kind = kind, .text = text(words)};
}

static int is_blank(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/* The next number of the header, behind blanks and comments; says what is wrong with it otherwise. */
static const char *number(const uint8_t **at, const uint8_t *end, uint32_t *value, int *is_cut) {
    const uint8_t *byte = *at;
    while (byte < end && (is_blank(*byte) || *byte == '#')) {
        if (*byte == '#')
            while (byte < end && *byte != '\n')
                byte++;
        else
            byte++;
    }
    uint64_t found = 0;
    const uint8_t *digits = byte;
    for (; byte < end && *byte >= '0' && *byte <= '9'; byte++)
        if ((found = found * 10 + (*byte - '0')) > UINT32_MAX)
            return "a number of its header is too large";
    *is_cut = byte == end;
    if (*is_cut)
        return "it ends within its header";
    if (byte == digits || !is_blank(*byte))
        return "there is no number where its header needs one";
    *at = byte;
    *value = (uint32_t)found;
    return 0;
}

static struct error *read(const uint8_t *bytes, uint32_t length, uint64_t max_pixels) {
    static struct error error;
    if (length < 2 || bytes[0] != 'P' || bytes[1] < '1' || bytes[1] > '6') {
        error = complaint(NOT_AN_IMAGE, "");
        return &error;
    }
    if (bytes[1] < '5') {
        error = complaint(UNSUPPORTED_FORMAT, "Netpbm that is no binary PGM or PPM");
        return &error;
    }
    channels = bytes[1] == '5' ? 1 : 3;
    const uint8_t *at = bytes + 2, *end = bytes + length;
    uint32_t most = 0, *numbers[] = {&width, &height, &most};
    for (int n = 0; n < 3; n++) {
        int is_cut = 0;
        const char *wrong = number(&at, end, numbers[n], &is_cut);
        if (wrong) {
            error = complaint(is_cut ? TRUNCATED : CORRUPT, wrong);
            return &error;
        }
    }
    uint64_t area = (uint64_t)width * height;
    if (area == 0)
        error = complaint(CORRUPT, "its header declares no pixels");
    else if (area > max_pixels)
        error = (struct error){.kind = TOO_MANY_PIXELS, .size = {width, height}};
    else if (most != 255)
        error = complaint(UNSUPPORTED_FORMAT, "Netpbm of other than 255 levels");
    else if ((uint64_t)(end - at - 1) / channels < area)
        error = complaint(TRUNCATED, "its pixels are not all there");
    else {
        pixels = at + 1;
        return 0;
    }
    return &error;
}

EXPORT(INTERFACE "probe")
struct probe_result *probe(const uint8_t *bytes, uint32_t length, uint64_t max_pixels) {
    static struct probe_result result;
    struct error *error = read(bytes, length, max_pixels);
    if (error)
        result = (struct probe_result){.is_error = 1, .error = *error};
    else
        result.ok = (struct image_info){width, height, text("PPM"), text(channels == 1 ? "L" : "RGB")};
    return &result;
}

/* The pixel nearest to the middle of each target pixel: the filter that is asked for is a wish. */
static uint32_t nearest(uint32_t at, uint32_t to, uint32_t from) {
    return (uint32_t)(((uint64_t)at * 2 + 1) * from / (2 * (uint64_t)to));
}

static struct features measure(const uint8_t *bytes, uint32_t length) {
    struct features features = {.min = 255};
    double sum = 0, squares = 0;
    for (uint32_t at = 0; at < length; at++) {
        sum += bytes[at];
        squares += (double)bytes[at] * bytes[at];
        if (bytes[at] < features.min)
            features.min = bytes[at];
        if (bytes[at] > features.max)
            features.max = bytes[at];
    }
    features.mean = sum / length;
    double variance = squares / length - features.mean * features.mean;
    features.std = variance > 0 ? __builtin_sqrt(variance) : 0;
    return features;
}

EXPORT(INTERFACE "tensor")
struct tensor_result *tensor(uint32_t w, uint32_t h, uint32_t fit, uint32_t filter, uint32_t color, uint32_t decode) {
    static struct tensor_result result;
    (void)filter, (void)decode;
    if (!pixels || fit != STRETCH) {
        result.is_error = 1;
        result.error = complaint(INVALID_OPTIONS, pixels ? "this component only stretches" : "no image was probed");
        return &result;
    }
    uint32_t length = w * h * (color == GRAY ? 1 : 3);
    uint8_t *out = cabi_realloc(0, 0, 1, length), *next = out;
    for (uint32_t y = 0; y < h; y++) {
        const uint8_t *row = pixels + (uint64_t)nearest(y, h, height) * width * channels;
        for (uint32_t x = 0; x < w; x++) {
            const uint8_t *from = row + nearest(x, w, width) * channels;
            uint8_t red = from[0], green = from[channels / 2], blue = from[channels - 1];
            if (color == GRAY) {
                *next++ = (uint8_t)((299u * red + 587u * green + 114u * blue) / 1000);
            } else {
                *next++ = color == RGB ? red : blue;
                *next++ = green;
                *next++ = color == RGB ? blue : red;
            }
        }
    }
    result.ok = (struct image_tensor){out, length, {0, 0, 1, 1}, measure(out, length)};
    return &result;
}

/* Only `POST /preprocess` asks for this, and never of a model's own component. */
EXPORT(INTERFACE "preprocess")
struct tensor_result *preprocess(uint32_t w, uint32_t h, uint32_t fit, uint32_t filter, uint32_t color, uint32_t decode) {
    static struct tensor_result result = {.is_error = 1};
    (void)w, (void)h, (void)fit, (void)filter, (void)color, (void)decode;
    result.error = complaint(UNSUPPORTED_FORMAT, "this component writes no JPEG");
    return &result;
}
