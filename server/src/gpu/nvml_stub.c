/* A driver's library with two GPUs, for tests on machines without one: the functions of nvml.h that Convoy calls, with
 * NVML's own names, signatures and units. FAKE_DRIVER and FAKE_CAPABILITY are set by the test that compiles it. */
#include <stddef.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef struct { int number; } *nvmlDevice_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;

static struct { int number; } devices[2] = {{0}, {1}};
static int readings = 0;

nvmlReturn_t nvmlInit_v2(void) { return 0; }
nvmlReturn_t nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(nvmlReturn_t result) { return result == 15 ? "GPU is lost" : "Some error"; }

static nvmlReturn_t text(char *out, unsigned int length, const char *value) {
  if (strlen(value) >= length) return 7;
  strcpy(out, value);
  return 0;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) { return text(version, length, FAKE_DRIVER); }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
  if (index > 1) return 2;
  *device = (nvmlDevice_t)&devices[index];
  return 0;
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) { (void)device; return text(name, length, "Test GPU"); }
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
  /* The second falls off the bus after its first reading. */
  if (device->number == 1 && readings > 0) return 15;
  return text(uuid, length, device->number ? "GPU-second" : "GPU-first");
}
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
  (void)device;
  *major = FAKE_CAPABILITY / 10;
  *minor = FAKE_CAPABILITY % 10;
  return 0;
}
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
  (void)device;
  rates->gpu = 25;
  rates->memory = 10;
  return 0;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
  memory->total = 80000000000ull;
  memory->reserved = 0;
  memory->used = 2000000000ull;
  memory->free = memory->total - memory->used;
  if (device->number == 1) readings++;
  return 0;
}
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) { (void)device; *milliwatts = 123500; return 0; }
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts) { (void)device; *milliwatts = 700000; return 0; }
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) { (void)device; *millijoules = 4200; return 0; }
/* Not offered, as on some cards: NVML_ERROR_NOT_SUPPORTED. */
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *celsius) { (void)device; (void)sensor; (void)celsius; return 3; }
