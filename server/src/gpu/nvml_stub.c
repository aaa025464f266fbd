/* A driver's library with two GPUs, for tests on machines without one: the functions of nvml.h that Convoy calls, with
 * NVML's own names, signatures and units. FAKE_DRIVER and FAKE_CAPABILITY are set by the test that compiles it. */
#include <stddef.h>
#include <string.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct { int number; } *nvmlDevice_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;

static struct { int number; } devices[2] = {{0}, {1}};
static int readings = 0;
static unsigned long long millijoules = 4200;
static int events = 0;

/* Cards of two kinds where the test asks for them: the second is then older. */
#ifndef FAKE_SECOND
#define FAKE_SECOND FAKE_CAPABILITY
#endif
/* What the first card reports, once. */
#ifndef FAKE_XID
#define FAKE_XID 0
#endif
typedef void *nvmlEventSet_t;
typedef struct { nvmlDevice_t device; unsigned long long eventType, eventData; unsigned int gpuInstanceId, computeInstanceId; } nvmlEventData_t;

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
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) { return text(name, length, device->number && FAKE_SECOND != FAKE_CAPABILITY ? "Old GPU" : "Test GPU"); }
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
  /* The second falls off the bus after its first reading. */
  if (device->number == 1 && readings > 0) return 15;
  return text(uuid, length, device->number ? "GPU-second" : "GPU-first");
}
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
  int capability = device->number ? FAKE_SECOND : FAKE_CAPABILITY;
  *major = capability / 10;
  *minor = capability % 10;
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
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *total) { (void)device; *total = millijoules; millijoules += 1500; return 0; }
/* Not offered, as on some cards: NVML_ERROR_NOT_SUPPORTED. */
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *celsius) { (void)device; (void)sensor; (void)celsius; return 3; }
/* Events of the first card; the second has none. */
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
#ifdef FAKE_HANG
  for (;;) pause();
#endif
  *set = &events;
  return 0;
}
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) { (void)set; return 0; }
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) { (void)types; (void)set; return device->number ? 3 : 0; }
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout) {
  (void)set; (void)timeout;
  if (!FAKE_XID || events++) return 10;
  data->device = (nvmlDevice_t)&devices[0];
  data->eventType = 8;
  data->eventData = FAKE_XID;
  data->gpuInstanceId = data->computeInstanceId = 0;
  return 0;
}
