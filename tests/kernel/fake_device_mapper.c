/*
 * For tests: lets the real multipathd run on a kernel without device-mapper. Preloaded, it answers the few ioctls of
 * /dev/mapper/control (<linux/dm-ioctl.h>) that multipathd needs to start: version, targets, and no devices at all.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

static const char *const CONTROL = "/dev/mapper/control";
static const char *const DEVICES = "/proc/devices";
static char devices_text[] = "Character devices:\n  1 mem\n\nBlock devices:\n253 device-mapper\n";

static int open_any(const char *path, int flags, int mode)
{
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");

	return strcmp(path, CONTROL) ? next(path, flags, mode) : next("/dev/zero", O_RDWR | O_CLOEXEC);
}

int open(const char *path, int flags, ...)
{
	va_list more;
	int mode;

	va_start(more, flags);
	mode = va_arg(more, int);
	va_end(more);
	return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list more;
	int mode;

	va_start(more, flags);
	mode = va_arg(more, int);
	va_end(more);
	return open_any(path, flags, mode);
}

FILE *fopen(const char *path, const char *mode)
{
	FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");

	return strcmp(path, DEVICES) ? next(path, mode) : fmemopen(devices_text, sizeof(devices_text) - 1, "r");
}

FILE *fopen64(const char *path, const char *mode)
{
	return fopen(path, mode);
}

static int answer(unsigned int command, struct dm_ioctl *request)
{
	char *body = (char *)request + request->data_start;
	struct dm_target_versions *target = (struct dm_target_versions *)body;

	request->version[0] = 4;
	request->version[1] = 48;
	request->version[2] = 0;
	switch (command) {
	case DM_VERSION_CMD:
	case DM_DEV_ARM_POLL_CMD:
		return 0;
	case DM_LIST_VERSIONS_CMD:
		memset(body, 0, 64);
		target->version[0] = 1;
		target->version[1] = 14;
		strcpy((char *)(target + 1), "multipath");
		request->data_size = request->data_start + 64;
		return 0;
	case DM_LIST_DEVICES_CMD:
		memset(body, 0, 64);
		request->data_size = request->data_start + 64;
		return 0;
	default:
		errno = ENXIO;
		return -1;
	}
}

int ioctl(int descriptor, unsigned long request, ...)
{
	int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	va_list more;
	void *argument;

	va_start(more, request);
	argument = va_arg(more, void *);
	va_end(more);
	if (_IOC_TYPE(request) != DM_IOCTL)
		return next(descriptor, request, argument);
	return answer(_IOC_NR(request), argument);
}
