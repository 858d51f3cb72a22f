/*
 * For tests: a device-mapper for the real multipathd, so that it runs on any kernel and never sees the machine's own
 * devices. Preloaded, it answers the ioctls of /dev/mapper/control (<linux/dm-ioctl.h>): a multipath target, and with
 * FAKE_DM_WWID in the environment one map, mpathb, that is dm-1 over 8:16 and 8:32 in a group each. Messages fail and
 * reinstate its paths; it cannot be removed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static const char *const CONTROL = "/dev/mapper/control";
static const char *const DEVICES = "/proc/devices";
static char devices_text[] = "Character devices:\n  1 mem\n\nBlock devices:\n253 device-mapper\n";

static int open_any(const char *path, int flags, int mode)
{
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");

	/* an event descriptor that nobody writes to: poll() for dm events waits on it for ever */
	return strcmp(path, CONTROL) ? next(path, flags, mode) : eventfd(0, EFD_CLOEXEC);
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

static struct {
	const char *dev_t;
	int failed;
	int failures;
} paths[] = { { "8:16", 0, 0 }, { "8:32", 0, 3 } };

static const char *const NAME = "mpathb";

static int describe(struct dm_ioctl *request)
{
	request->dev = 253 << 8 | 1;
	request->open_count = 1;
	request->target_count = 1;
	request->flags |= DM_ACTIVE_PRESENT_FLAG;
	strcpy(request->name, NAME);
	snprintf(request->uuid, sizeof(request->uuid), "mpath-%s", getenv("FAKE_DM_WWID"));
	return 0;
}

/* libdevmapper makes the node when it is not there; in a user namespace it may not */
int mknod(const char *path, mode_t mode, dev_t device)
{
	int (*next)(const char *, mode_t, dev_t) = dlsym(RTLD_NEXT, "mknod");

	return strcmp(path, CONTROL) ? next(path, mode, device) : 0;
}

static int list_devices(struct dm_ioctl *request, char *body)
{
	struct dm_name_list *entry = (struct dm_name_list *)body;

	memset(body, 0, 64);
	if (getenv("FAKE_DM_WWID")) {
		entry->dev = 253 << 8 | 1;
		strcpy(entry->name, NAME);
	}
	request->data_size = request->data_start + 64;
	return 0;
}

static int list_targets(struct dm_ioctl *request, char *body)
{
	struct dm_target_versions *target = (struct dm_target_versions *)body;

	memset(body, 0, 64);
	target->version[0] = 1;
	target->version[1] = 14;
	strcpy((char *)(target + 1), "multipath");
	request->data_size = request->data_start + 64;
	return 0;
}

static int status(struct dm_ioctl *request, char *body)
{
	struct dm_target_spec *target = (struct dm_target_spec *)body;
	char *text = (char *)(target + 1);
	int table = request->flags & DM_STATUS_TABLE_FLAG;

	describe(request);
	memset(body, 0, sizeof(*target) + 256);
	target->length = 2097152;
	strcpy(target->target_type, "multipath");
	if (table)
		strcpy(text, "1 queue_if_no_path 1 alua 2 1 service-time 0 1 2 8:16 1 1 service-time 0 1 2 8:32 1 1 ");
	else
		sprintf(text, "2 0 0 0 2 1 A 0 1 2 %s %c %d 0 1 E 0 1 2 %s %c %d 0 1 ", paths[0].dev_t,
			paths[0].failed ? 'F' : 'A', paths[0].failures, paths[1].dev_t,
			paths[1].failed ? 'F' : 'A', paths[1].failures);
	target->next = sizeof(*target) + 256;
	request->data_size = request->data_start + target->next;
	return 0;
}

static int dependencies(struct dm_ioctl *request, char *body)
{
	struct dm_target_deps *devices = (struct dm_target_deps *)body;

	describe(request);
	devices->count = 2;
	devices->dev[0] = 8 << 8 | 16;
	devices->dev[1] = 8 << 8 | 32;
	request->data_size = request->data_start + sizeof(*devices) + sizeof(devices->dev[0]) * 2;
	return 0;
}

static int message(struct dm_ioctl *request, const char *text)
{
	char verb[32], device[32];
	int i;

	if (sscanf(text, "%31s %31s", verb, device) == 2)
		for (i = 0; i < 2; i++)
			if (!strcmp(device, paths[i].dev_t)) {
				paths[i].failures += !strcmp(verb, "fail_path") && !paths[i].failed;
				paths[i].failed = !strcmp(verb, "fail_path");
			}
	describe(request);
	request->data_size = request->data_start;
	return 0;
}

static int answer(unsigned int command, struct dm_ioctl *request)
{
	char *body = (char *)request + request->data_start;

	request->version[0] = 4;
	request->version[1] = 48;
	request->version[2] = 0;
	switch (command) {
	case DM_VERSION_CMD:
	case DM_DEV_ARM_POLL_CMD:
		return 0;
	case DM_LIST_VERSIONS_CMD:
		return list_targets(request, body);
	case DM_LIST_DEVICES_CMD:
		return list_devices(request, body);
	}
	if (!getenv("FAKE_DM_WWID") || (request->name[0] && strcmp(request->name, NAME))) {
		errno = ENXIO;
		return -1;
	}
	switch (command) {
	case DM_DEV_STATUS_CMD:
	case DM_DEV_SUSPEND_CMD:
	case DM_TABLE_LOAD_CMD:
	case DM_TABLE_CLEAR_CMD:
		return describe(request);
	case DM_TABLE_STATUS_CMD:
		return status(request, body);
	case DM_TABLE_DEPS_CMD:
		return dependencies(request, body);
	case DM_TARGET_MSG_CMD:
		return message(request, ((struct dm_target_msg *)body)->message);
	case DM_DEV_REMOVE_CMD:
		errno = EBUSY;
		return -1;
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
