/*
 * A user MAD device without a kernel: a library to be preloaded into a program that opens /dev/infiniband/umadN.
 *
 * The program is attached to nodes of an ibsim fabric. It finds /dev/infiniband/umadN and issmN and the folders
 * infiniband, infiniband_mad, infiniband_srp and scsi_host of /sys/class as Linux shows them, and the device behaves
 * as ib_umad does (ABI 5): P_Key mode, agents, duplicate transaction IDs, timeouts and retries, status 110 with a
 * 24-byte MAD, RMPP, ENOSPC. A descriptor is one end of a socket pair, so that poll, select and epoll work on it; read,
 * readv, write and close are the shim's, so that errors are the kernel's.
 *
 * Environment:
 *   UMAD_SHIM_HOSTS      node[=device] of the fabric, separated by commas; the first is umad0
 *   UMAD_SHIM_TREE       an existing folder for the sysfs files
 *   UMAD_SHIM_REQUESTS   set: receive unsolicited requests (one program per node can)
 *   UMAD_SHIM_FAST_FAIL  set: a request that the fabric cannot route times out at once, not after its time
 *   UMAD_SHIM_OLD_SM     set: hide that the SA matches capability masks
 *   IBSIM_SOCKNAME       ibsim's name space, "sim" if not set
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/ib_user_mad.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_HCAS = 4, MAX_FILES = 64, MAX_AGENTS = 32, MAD = 256, MAD_HEADER = 24, RMPP_HEADER = 36, MAX_TABLE = 1 << 22 };

/* ---- ibsim's protocol ---- */

enum { CONNECT = 1, DISCONNECT, NODE_INFO = 7, PORT_INFO = 8, SET_ISSM = 9, PKEYS = 10 };

struct control {
	uint32_t magic, client, type, length;
	uint8_t data[64];
};

struct client {
	uint32_t id, qp, issm;
	char node[32];
};

struct datagram { /* LIDs, QPNs, status and length in network order */
	uint16_t dlid, pad1, slid, pad2;
	uint32_t dqp, sqp, status, pad3;
	uint64_t length;
	uint8_t mad[MAD];
};

/* ---- what there is ---- */

struct hca {
	char node[32], device[64];
	int control, data;
	uint32_t client;
	pthread_mutex_t sending;
	int64_t refreshed;
	uint8_t told[3 * 64]; /* what ibsim said then: NodeInfo, PortInfo, P_Key table */
};

struct agent {
	int used, rmpp;
	uint32_t qpn;
	uint8_t class, version;
	uint64_t methods[2];
	uint16_t high; /* bits 32 to 47 of its transaction IDs */
};

struct file {
	int used, fd, peer, issm, with_pkey;
	struct hca *hca;
	struct agent agents[MAX_AGENTS];
};

struct pending { /* a request that waits for its answer */
	struct pending *next;
	struct file *file;
	int agent;
	uint32_t tid;
	int64_t deadline;
	struct ib_user_mad_hdr header;
	size_t length;
	uint8_t mad[];
};

struct assembly { /* segments of an RMPP message so far */
	struct assembly *next;
	struct file *file;
	uint64_t tid;
	uint16_t lid;
	uint32_t segment;
	size_t length;
	uint8_t *bytes;
};

static struct hca hcas[MAX_HCAS];
static int hca_count;
static struct file files[MAX_FILES];
static struct pending *pendings;
static struct assembly *assemblies;
static uint16_t last_high;
static int bell[2]; /* wakes the receiving thread */
static char tree[PATH_MAX / 2];
static int ready, fast_fail, old_sm;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void die(const char *what)
{
	fprintf(stderr, "umad_shim: %s: %s\n", what, strerror(errno));
	_exit(99);
}

/* The C library's own function of that name. */
static void *original(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);
	if (!found) {
		fprintf(stderr, "umad_shim: no %s\n", name);
		_exit(99);
	}
	return found;
}
#define ORIGINAL(name, type) \
	static __typeof__(type) real; \
	if (!real) real = (__typeof__(type))original(name)

/* ---- ibsim's control socket ---- */

static int ask_ibsim(struct hca *hca, uint32_t type, void *data, size_t length)
{
	struct control c = {0xdeadbeef, hca->client, type, length, {0}};
	int ok;
	memcpy(c.data, data, length);
	pthread_mutex_lock(&asking);
	ok = send(hca->control, &c, sizeof c, 0) == sizeof c && recv(hca->control, &c, sizeof c, 0) == sizeof c && c.type;
	pthread_mutex_unlock(&asking);
	if (ok && type != DISCONNECT)
		memcpy(data, c.data, length);
	return ok ? 0 : -1;
}

/* The abstract names include a final zero. */
static int socket_between(const char *ours, const char *theirs)
{
	const char *names[] = {ours, theirs};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_un u = {.sun_family = AF_UNIX};
		size_t n = strlen(names[i]);
		socklen_t l = offsetof(struct sockaddr_un, sun_path) + 1 + n + 1;
		memcpy(u.sun_path + 1, names[i], n);
		if (i == 0 ? bind(fd, (void *)&u, l) : connect(fd, (void *)&u, l))
			die(names[i]);
	}
	return fd;
}

static void attach(struct hca *hca, int index)
{
	const char *base = getenv("IBSIM_SOCKNAME");
	char ours[100], theirs[100];
	struct client c = {.id = getpid() * MAX_HCAS + index, .issm = !!getenv("UMAD_SHIM_REQUESTS")};
	struct timeval patience = {.tv_sec = 5};
	if (!base)
		base = "sim";
	snprintf(ours, sizeof ours, "%s:ctl%u", base, c.id);
	snprintf(theirs, sizeof theirs, "%s:ctl", base);
	hca->control = socket_between(ours, theirs);
	setsockopt(hca->control, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	memcpy(c.node, hca->node, sizeof c.node);
	snprintf(ours, sizeof ours, "%s:in%u", base, c.id);
	/* ibsim connects to the data socket when it hears CONNECT, and tells its own name */
	hca->data = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un u = {.sun_family = AF_UNIX};
	memcpy(u.sun_path + 1, ours, strlen(ours));
	if (bind(hca->data, (void *)&u, offsetof(struct sockaddr_un, sun_path) + 2 + strlen(ours)))
		die(ours);
	if (ask_ibsim(hca, CONNECT, &c, sizeof c)) {
		errno = ECONNREFUSED;
		die(hca->node);
	}
	hca->client = c.id;
	memset(&u.sun_path, 0, sizeof u.sun_path);
	int n = snprintf(u.sun_path + 1, sizeof u.sun_path - 1, "%s:out%u", base, c.id);
	if (connect(hca->data, (void *)&u, offsetof(struct sockaddr_un, sun_path) + 2 + n))
		die("data socket");
	pthread_mutex_init(&hca->sending, NULL);
}

static void detach_all(void)
{
	for (int i = 0; i < hca_count; i++)
		ask_ibsim(&hcas[i], DISCONNECT, NULL, 0);
}

/* ---- sysfs ---- */

static void put(const char *path, const char *format, ...)
{
	ORIGINAL("fopen", FILE * (*)(const char *, const char *));
	char full[PATH_MAX], temporary[PATH_MAX + 8];
	va_list arguments;
	FILE *f;
	snprintf(full, sizeof full, "%s%s", tree, path);
	for (char *slash = full + strlen(tree) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(full, 0755);
		*slash = '/';
	}
	snprintf(temporary, sizeof temporary, "%s.new", full);
	if (!(f = real(temporary, "w")))
		return;
	va_start(arguments, format);
	vfprintf(f, format, arguments);
	va_end(arguments);
	fclose(f);
	rename(temporary, full);
}

static void put_groups(const char *path, uint64_t high, uint64_t low, int with_high)
{
	char text[40] = "";
	uint64_t halves[] = {high, low};
	for (int i = with_high ? 0 : 4; i < 8; i++)
		sprintf(text + strlen(text), "%04x%s", (unsigned)(halves[i / 4] >> (48 - 16 * (i % 4)) & 0xffff), i < 7 ? ":" : "");
	put(path, "%s\n", text);
}

/* Write what ibsim says of a port, unless it said the same before or was asked a moment ago. */
static void refresh(struct hca *hca, int index)
{
	static const char *states[] = {"NOP", "DOWN", "INIT", "ARMED", "ACTIVE"};
	uint8_t told[3 * 64] = {0}, *node = told, *port = told + 64, *pkeys = told + 128;
	uint64_t prefix, guid, node_guid;
	char path[200];
	int number, state, up;
	if (hca->refreshed && now_ms() - hca->refreshed < 10)
		return;
	if (ask_ibsim(hca, NODE_INFO, node, 64) || ask_ibsim(hca, PORT_INFO, port, 64) || ask_ibsim(hca, PKEYS, pkeys, 64))
		return;
	int first = !hca->refreshed;
	hca->refreshed = now_ms();
	if (!first && !memcmp(told, hca->told, sizeof told))
		return;
	memcpy(hca->told, told, sizeof told);
	number = port[28] ? port[28] : 1; /* of a switch its management port, which Linux shows as port 1 */
	state = port[32] & 15;
	up = (port[33] >> 4) == 5;
	memcpy(&prefix, port + 8, 8);
	memcpy(&node_guid, node + 12, 8);
	node_guid = be64toh(node_guid);
	guid = node_guid + port[28]; /* how ibsim numbers ports */
#define ATTRIBUTE(name, ...) \
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/%d/%s", hca->device, number, name); \
	put(path, __VA_ARGS__)
	ATTRIBUTE("state", "%d: %s\n", state, states[state > 4 ? 0 : state]);
	ATTRIBUTE("phys_state", "%s\n", up ? "5: LinkUp" : "2: Polling");
	ATTRIBUTE("lid", "0x%x\n", port[16] << 8 | port[17]);
	ATTRIBUTE("sm_lid", "0x%x\n", port[18] << 8 | port[19]);
	ATTRIBUTE("sm_sl", "%d\n", port[36] & 15);
	ATTRIBUTE("lid_mask_count", "%d\n", port[34] & 7);
	ATTRIBUTE("cap_mask", "0x%02x%02x%02x%02x\n", port[20], port[21], port[22], port[23]);
	ATTRIBUTE("rate", "10 Gb/sec (4X)\n");
	ATTRIBUTE("link_layer", "InfiniBand\n");
	for (int i = 0; i < 32; i++) {
		char name[20];
		snprintf(name, sizeof name, "pkeys/%d", i);
		ATTRIBUTE(name, "0x%02x%02x\n", pkeys[2 * i], pkeys[2 * i + 1]);
	}
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/%d/gids/0", hca->device, number);
	put_groups(path, be64toh(prefix), guid, 1);
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/node_guid", hca->device);
	put_groups(path, 0, node_guid, 0);
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/sys_image_guid", hca->device);
	put_groups(path, 0, node_guid, 0);
	const char *constants[][2] = {{"node_type", "1: CA"}, {"hca_type", "ibsim"}, {"fw_ver", "0.0.0"}, {"hw_rev", "0"}};
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "/sys/class/infiniband/%s/%s", hca->device, constants[i][0]);
		put(path, "%s\n", constants[i][1]);
	}
	for (int i = 0; i < 2; i++) {
		const char *kind = i ? "issm" : "umad";
		snprintf(path, sizeof path, "/sys/class/infiniband_mad/%s%d/ibdev", kind, index);
		put(path, "%s\n", hca->device);
		snprintf(path, sizeof path, "/sys/class/infiniband_mad/%s%d/port", kind, index);
		put(path, "%d\n", number);
	}
	put("/sys/class/infiniband_mad/abi_version", "%d\n", IB_USER_MAD_ABI_VERSION);
	put("/sys/class/scsi_host/.empty", "\n");
}

/* ---- sending ---- */

static void transmit(struct hca *hca, struct datagram *d, int flags)
{
	pthread_mutex_lock(&hca->sending);
	if (send(hca->data, d, sizeof *d, flags) < 0 && !(flags & MSG_DONTWAIT))
		perror("umad_shim: send");
	pthread_mutex_unlock(&hca->sending);
}

/* Length of the headers that every segment of a class carries. */
static size_t segment_header(uint8_t class)
{
	return class == 3 ? 56 : class == 6 ? 64 : class >= 0x30 && class <= 0x4f ? 40 : RMPP_HEADER;
}

static void emit(struct hca *hca, const struct agent *agent, const struct ib_user_mad_hdr *to, const uint8_t *mad,
		 size_t length, int flags)
{
	struct datagram d = {.dlid = to->lid, .dqp = to->qpn, .sqp = htobe32(agent->qpn), .length = htobe64(MAD)};
	d.slid = to->lid == 0xffff ? 0xffff : 0;
	if (!agent->rmpp || !(mad[26] & 1)) {
		memcpy(d.mad, mad, length < MAD ? length : MAD);
		transmit(hca, &d, flags);
		return;
	}
	/* The sender marks a message as RMPP by the flag "active" alone; the rest of the header is the kernel's. */
	size_t head = segment_header(mad[1]), room = MAD - head, total = length > head ? length - head : 0;
	uint32_t segments = total ? (total + room - 1) / room : 1;
	for (uint32_t n = 1; n <= segments; n++) {
		size_t offset = (n - 1) * room, part = total - offset < room ? total - offset : room;
		uint32_t payload = n == segments ? part + head - RMPP_HEADER : 0, number = htobe32(n);
		if (n == 1 && segments > 1)
			payload = total + segments * (head - RMPP_HEADER);
		payload = htobe32(payload);
		memset(d.mad, 0, MAD);
		memcpy(d.mad, mad, head);
		memcpy(d.mad + head, mad + head + offset, part);
		d.mad[24] = 1; /* version */
		d.mad[25] = 1; /* data */
		d.mad[26] = (mad[26] & 0xf8) | 1 | (n == 1 ? 2 : 0) | (n == segments ? 4 : 0);
		memcpy(d.mad + 28, &number, 4);
		memcpy(d.mad + 32, &payload, 4);
		transmit(hca, &d, flags);
	}
}

static int is_response(const uint8_t *mad)
{
	return (mad[3] & 0x80) || mad[3] == 7; /* TrapRepress */
}

static uint32_t low_tid(const uint8_t *mad)
{
	uint32_t tid;
	memcpy(&tid, mad + 12, 4);
	return tid;
}

static ssize_t send_packet(struct file *file, const uint8_t *data, size_t count)
{
	size_t head = file->with_pkey ? 64 : 56, length = count - head;
	struct ib_user_mad_hdr header = {0};
	struct pending *p;
	struct agent agent;
	uint8_t *mad;
	if (count < head + RMPP_HEADER || count > MAX_TABLE) {
		errno = EINVAL;
		return -1;
	}
	memcpy(&header, data, head);
	if (header.id >= MAX_AGENTS || !file->agents[header.id].used) {
		errno = EINVAL;
		return -1;
	}
	if (!(p = calloc(1, sizeof *p + (length < MAD ? MAD : length)))) {
		errno = ENOMEM;
		return -1;
	}
	mad = p->mad;
	memcpy(mad, data + head, length);
	pthread_mutex_lock(&lock);
	agent = file->agents[header.id];
	if (!is_response(mad)) {
		uint32_t high = htobe32(agent.high);
		memcpy(mad + 8, &high, 4);
		for (struct pending *q = pendings; q; q = q->next)
			if (q->file == file && q->tid == low_tid(mad) && q->mad[1] == mad[1] && q->agent == (int)header.id) {
				pthread_mutex_unlock(&lock);
				free(p);
				errno = EINVAL;
				return -1;
			}
	}
	*p = (struct pending){pendings, file, header.id, low_tid(mad), now_ms() + header.timeout_ms, header, length};
	int waits = header.timeout_ms && !is_response(mad);
	if (waits)
		pendings = p;
	uint8_t *copy = malloc(length < MAD ? MAD : length);
	memcpy(copy, mad, length);
	pthread_mutex_unlock(&lock);
	if (waits && write(bell[1], "", 1) < 0 && errno != EAGAIN)
		die("bell");
	emit(file->hca, &agent, &header, copy, length, 0);
	free(copy);
	if (!waits)
		free(p);
	return count;
}

/* ---- receiving; all of it with the lock held ---- */

static void deliver(struct file *file, int agent, uint32_t status, const struct ib_user_mad_hdr *from, const uint8_t *mad,
		    size_t length)
{
	size_t head = file->with_pkey ? 64 : 56;
	struct ib_user_mad_hdr header = *from;
	uint8_t *packet = malloc(head + length);
	header.id = agent;
	header.status = status;
	header.length = head + length;
	memcpy(packet, &header, head);
	memcpy(packet + head, mad, length);
	if (send(file->peer, packet, head + length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		fprintf(stderr, "umad_shim: %zu bytes lost: %s\n", length, strerror(errno));
	free(packet);
}

static struct pending *take_pending(struct file *file, int agent, const uint8_t *mad)
{
	for (struct pending **p = &pendings; *p; p = &(*p)->next)
		if ((*p)->file == file && (*p)->agent == agent && (*p)->tid == low_tid(mad) && (*p)->mad[1] == mad[1]) {
			struct pending *found = *p;
			*p = found->next;
			return found;
		}
	return NULL;
}

static void time_out(struct pending *p)
{
	deliver(p->file, p->agent, ETIMEDOUT, &p->header, p->mad, MAD_HEADER);
	free(p);
}

/* One more segment; the whole message when it was the last, else NULL. */
static struct assembly *assemble(struct file *file, const struct datagram *d)
{
	const uint8_t *mad = d->mad;
	size_t head = segment_header(mad[1]);
	struct assembly **place, *a;
	uint32_t number, payload;
	uint64_t tid;
	memcpy(&tid, mad + 8, 8);
	memcpy(&number, mad + 28, 4);
	memcpy(&payload, mad + 32, 4);
	number = be32toh(number);
	payload = be32toh(payload);
	if (mad[25] != 1)
		return NULL; /* only data: nobody acknowledges here */
	for (place = &assemblies; (a = *place); place = &a->next)
		if (a->file == file && a->tid == tid && a->lid == d->slid)
			break;
	if (!a) {
		if (number != 1)
			return NULL;
		a = calloc(1, sizeof *a);
		*a = (struct assembly){assemblies, file, tid, d->slid, 0, head, malloc(MAX_TABLE)};
		memcpy(a->bytes, mad, head);
		assemblies = a;
		place = &assemblies;
	}
	if (number != a->segment + 1 || a->length + MAD > MAX_TABLE)
		return NULL;
	a->segment = number;
	memcpy(a->bytes + a->length, mad + head, MAD - head);
	a->length += MAD - head;
	if (!(mad[26] & 4))
		return NULL;
	if (payload && payload <= MAD - RMPP_HEADER)
		a->length -= MAD - RMPP_HEADER - payload;
	*place = a->next;
	return a;
}

static void receive_response(struct hca *hca, struct datagram *d, const struct ib_user_mad_hdr *from)
{
	uint8_t *mad = d->mad;
	struct file *file = NULL;
	int number = 0;
	for (int i = 0; i < MAX_FILES && !file; i++)
		for (int j = 0; j < MAX_AGENTS && files[i].used && files[i].hca == hca && !file; j++)
			if (files[i].agents[j].used && files[i].agents[j].high == (mad[10] << 8 | mad[11]))
				file = &files[i], number = j;
	if (!file)
		return;
	mad[8] = mad[9] = 0; /* where ibsim notes its client */
	if (d->status) {
		struct pending *p = fast_fail ? take_pending(file, number, mad) : NULL;
		if (p)
			time_out(p);
		return;
	}
	if (old_sm && mad[1] == 3 && mad[3] == 0x81 && mad[17] == 1)
		mad[58] &= ~0x20; /* capability mask of the SA's ClassPortInfo, bit 13 */
	struct assembly *whole = NULL;
	if (file->agents[number].rmpp && mad[24] == 1 && (mad[26] & 1)) {
		if (!(whole = assemble(file, d)))
			return;
	}
	struct pending *p = take_pending(file, number, mad);
	if (p)
		deliver(file, number, 0, from, whole ? whole->bytes : mad, whole ? whole->length : MAD);
	free(p);
	if (whole) {
		free(whole->bytes);
		free(whole);
	}
}

static void receive(struct hca *hca)
{
	struct datagram d;
	struct ib_user_mad_hdr from = {0};
	if (recv(hca->data, &d, sizeof d, MSG_DONTWAIT) != sizeof d)
		return;
	from.qpn = d.sqp;
	from.lid = d.slid;
	if (d.status || is_response(d.mad)) {
		receive_response(hca, &d, &from);
		return;
	}
	for (int i = 0; i < MAX_FILES; i++)
		for (int j = 0; j < MAX_AGENTS && files[i].used && files[i].hca == hca; j++) {
			struct agent *a = &files[i].agents[j];
			if (a->used && a->class == d.mad[1] && a->version == d.mad[2] && a->methods[d.mad[3] / 64] >> d.mad[3] % 64 & 1) {
				deliver(&files[i], j, 0, &from, d.mad, MAD);
				return;
			}
		}
}

/* Resend or end what is due; milliseconds until something else is. */
static int expire(void)
{
	int64_t now = now_ms(), next = now + 1000;
	for (struct pending **place = &pendings, *p; (p = *place);) {
		if (p->deadline > now) {
			next = p->deadline < next ? p->deadline : next;
			place = &p->next;
		} else if (p->header.retries) {
			p->header.retries--;
			p->deadline = now + p->header.timeout_ms;
			emit(p->file->hca, &p->file->agents[p->agent], &p->header, p->mad, p->length, MSG_DONTWAIT);
		} else {
			*place = p->next;
			time_out(p);
		}
	}
	return next - now;
}

static void *receiving(void *unused)
{
	(void)unused;
	for (;;) {
		struct pollfd polled[MAX_HCAS + 1] = {{.fd = bell[0], .events = POLLIN}};
		char drained[64];
		pthread_mutex_lock(&lock);
		int wait = expire();
		pthread_mutex_unlock(&lock);
		for (int i = 0; i < hca_count; i++)
			polled[i + 1] = (struct pollfd){.fd = hcas[i].data, .events = POLLIN};
		if (poll(polled, hca_count + 1, wait) < 0)
			continue;
		if (polled[0].revents && recv(bell[0], drained, sizeof drained, MSG_DONTWAIT) < 0 && errno != EAGAIN)
			die("bell");
		pthread_mutex_lock(&lock);
		for (int i = 0; i < hca_count; i++)
			if (polled[i + 1].revents)
				receive(&hcas[i]);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/* ---- files ---- */

static void start(void)
{
	pthread_mutex_lock(&starting);
	if (!ready) {
		char hosts[512], *rest = hosts, *item;
		const char *folder = getenv("UMAD_SHIM_TREE"), *named = getenv("UMAD_SHIM_HOSTS");
		pthread_t thread;
		errno = EINVAL;
		if (!folder || !named)
			die("UMAD_SHIM_TREE and UMAD_SHIM_HOSTS must be set");
		fast_fail = !!getenv("UMAD_SHIM_FAST_FAIL");
		old_sm = !!getenv("UMAD_SHIM_OLD_SM");
		snprintf(tree, sizeof tree, "%s/%d", folder, getpid());
		mkdir(tree, 0755);
		snprintf(hosts, sizeof hosts, "%s", named);
		while ((item = strsep(&rest, ",")) && hca_count < MAX_HCAS) {
			struct hca *hca = &hcas[hca_count];
			char *device = strchr(item, '=');
			if (device)
				*device++ = 0;
			snprintf(hca->node, sizeof hca->node, "%s", item);
			if (device)
				snprintf(hca->device, sizeof hca->device, "%s", device);
			else
				snprintf(hca->device, sizeof hca->device, "ibsim%d", hca_count);
			attach(hca, hca_count++);
		}
		atexit(detach_all);
		for (int i = 0; i < hca_count; i++)
			refresh(&hcas[i], i);
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bell) ||
		    pthread_create(&thread, NULL, receiving, NULL))
			die("start");
		ready = 1;
	}
	pthread_mutex_unlock(&starting);
}

static int is_ours(const char *path)
{
	static const char *folders[] = {"infiniband/", "infiniband_mad/", "infiniband_srp/", "scsi_host/"};
	if (!path || strncmp(path, "/sys/class/", 11))
		return 0;
	for (int i = 0; i < 4; i++) {
		size_t n = strlen(folders[i]) - 1;
		if (!strncmp(path + 11, folders[i], n) && (path[11 + n] == '/' || !path[11 + n]))
			return 1;
	}
	return 0;
}

/* Where `path` really is; sysfs files are brought up to date first. */
static const char *place_of(const char *path, char *buffer)
{
	if (!is_ours(path))
		return path;
	start();
	pthread_mutex_lock(&starting);
	for (int i = 0; i < hca_count; i++)
		refresh(&hcas[i], i);
	pthread_mutex_unlock(&starting);
	snprintf(buffer, PATH_MAX, "%s%s", tree, path);
	return buffer;
}

/* The number N of /dev/infiniband/umadN or issmN, or -1. */
static int device_number(const char *path, int *issm)
{
	int number, used = 0;
	if (!path || strncmp(path, "/dev/infiniband/", 16))
		return -1;
	*issm = !strncmp(path + 16, "issm", 4);
	if (sscanf(path + 16, *issm ? "issm%d%n" : "umad%d%n", &number, &used) != 1 || path[16 + used])
		return -1;
	start();
	return number < hca_count ? number : -1;
}

static int open_device(int number, int issm, int flags)
{
	int pair[2], size = MAX_TABLE, one = 1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -1;
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	if (flags & O_NONBLOCK)
		fcntl(pair[0], F_SETFL, O_NONBLOCK);
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_FILES; i++)
		if (!files[i].used) {
			files[i] = (struct file){.used = 1, .fd = pair[0], .peer = pair[1], .issm = issm, .hca = &hcas[number]};
			pthread_mutex_unlock(&lock);
			if (issm)
				ask_ibsim(&hcas[number], SET_ISSM, &one, sizeof one);
			return pair[0];
		}
	pthread_mutex_unlock(&lock);
	errno = EMFILE;
	return -1;
}

static struct file *file_of(int fd)
{
	for (int i = 0; ready && fd >= 0 && i < MAX_FILES; i++)
		if (files[i].used && files[i].fd == fd)
			return &files[i];
	return NULL;
}

#define OPEN(name, has_mode) \
	int name(const char *path, int flags, ...) \
	{ \
		ORIGINAL(#name, int (*)(const char *, int, ...)); \
		char buffer[PATH_MAX]; \
		va_list arguments; \
		mode_t mode = 0; \
		int issm, number = device_number(path, &issm); \
		if (number >= 0) \
			return open_device(number, issm, flags); \
		if (has_mode && (flags & (O_CREAT | O_TMPFILE))) { \
			va_start(arguments, flags); \
			mode = va_arg(arguments, mode_t); \
			va_end(arguments); \
		} \
		return real(place_of(path, buffer), flags, mode); \
	}
OPEN(open, 1)
OPEN(open64, 1)
OPEN(__open_2, 0)
OPEN(__open64_2, 0)

#define OPENAT(name) \
	int name(int folder, const char *path, int flags, ...) \
	{ \
		ORIGINAL(#name, int (*)(int, const char *, int, ...)); \
		char buffer[PATH_MAX]; \
		va_list arguments; \
		mode_t mode = 0; \
		int issm, number = device_number(path, &issm); \
		if (number >= 0) \
			return open_device(number, issm, flags); \
		if (flags & (O_CREAT | O_TMPFILE)) { \
			va_start(arguments, flags); \
			mode = va_arg(arguments, mode_t); \
			va_end(arguments); \
		} \
		return real(folder, place_of(path, buffer), flags, mode); \
	}
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
	FILE *name(const char *path, const char *mode) \
	{ \
		ORIGINAL(#name, FILE * (*)(const char *, const char *)); \
		char buffer[PATH_MAX]; \
		return real(place_of(path, buffer), mode); \
	}
FOPEN(fopen)
FOPEN(fopen64)

DIR *opendir(const char *path)
{
	ORIGINAL("opendir", DIR * (*)(const char *));
	char buffer[PATH_MAX];
	return real(place_of(path, buffer));
}

#define SCANDIR(name, entry) \
	int name(const char *path, struct entry ***list, int (*filter)(const struct entry *), \
		 int (*compare)(const struct entry **, const struct entry **)) \
	{ \
		ORIGINAL(#name, int (*)(const char *, struct entry ***, int (*)(const struct entry *), \
					int (*)(const struct entry **, const struct entry **))); \
		char buffer[PATH_MAX]; \
		return real(place_of(path, buffer), list, filter, compare); \
	}
SCANDIR(scandir, dirent)
SCANDIR(scandir64, dirent64)

#define STAT(name, type) \
	int name(const char *path, struct type *status) \
	{ \
		ORIGINAL(#name, int (*)(const char *, struct type *)); \
		char buffer[PATH_MAX]; \
		int issm; \
		if (device_number(path, &issm) >= 0) { \
			memset(status, 0, sizeof *status); \
			status->st_mode = S_IFCHR | 0600; \
			return 0; \
		} \
		return real(place_of(path, buffer), status); \
	}
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)

int access(const char *path, int mode)
{
	ORIGINAL("access", int (*)(const char *, int));
	char buffer[PATH_MAX];
	int issm;
	return device_number(path, &issm) >= 0 ? 0 : real(place_of(path, buffer), mode);
}

ssize_t readv(int fd, const struct iovec *parts, int count)
{
	ORIGINAL("readv", ssize_t(*)(int, const struct iovec *, int));
	struct file *file = file_of(fd);
	size_t room = 0;
	if (!file || file->issm)
		return real(fd, parts, count);
	for (int i = 0; i < count; i++)
		room += parts[i].iov_len;
	size_t head = file->with_pkey ? 64 : 56;
	ssize_t length = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
	if (length < 0)
		return -1;
	if (room < head || room < (size_t)length) {
		/* The packet stays in the queue. A first segment is handed over when there is room for one. */
		if (room < head + MAD || count != 1) {
			errno = EINVAL;
			return -1;
		}
		recv(fd, parts[0].iov_base, head + MAD, MSG_PEEK);
		errno = ENOSPC;
		return -1;
	}
	return real(fd, parts, count);
}

ssize_t read(int fd, void *buffer, size_t count)
{
	ORIGINAL("read", ssize_t(*)(int, void *, size_t));
	struct iovec part = {buffer, count};
	return file_of(fd) ? readv(fd, &part, 1) : real(fd, buffer, count);
}

ssize_t __read_chk(int fd, void *buffer, size_t count, size_t size)
{
	(void)size;
	return read(fd, buffer, count);
}

ssize_t write(int fd, const void *data, size_t count)
{
	ORIGINAL("write", ssize_t(*)(int, const void *, size_t));
	struct file *file = file_of(fd);
	return file && !file->issm ? send_packet(file, data, count) : real(fd, data, count);
}

int close(int fd)
{
	ORIGINAL("close", int (*)(int));
	struct file *file = file_of(fd);
	if (file) {
		int zero = 0, peer = file->peer;
		if (file->issm)
			ask_ibsim(file->hca, SET_ISSM, &zero, sizeof zero);
		pthread_mutex_lock(&lock);
		for (struct pending **place = &pendings, *p; (p = *place);)
			if (p->file == file) {
				*place = p->next;
				free(p);
			} else {
				place = &p->next;
			}
		for (struct assembly **place = &assemblies, *a; (a = *place);)
			if (a->file == file) {
				*place = a->next;
				free(a->bytes);
				free(a);
			} else {
				place = &a->next;
			}
		file->used = 0;
		pthread_mutex_unlock(&lock);
		real(peer);
	}
	return real(fd);
}

/* ---- registration ---- */

static int methods_taken(const struct file *file, const struct agent *wanted)
{
	for (int i = 0; i < MAX_FILES; i++)
		for (int j = 0; j < MAX_AGENTS && files[i].used && files[i].hca == file->hca; j++) {
			const struct agent *a = &files[i].agents[j];
			if (a->used && a->class == wanted->class && a->version == wanted->version && a->qpn == wanted->qpn &&
			    ((a->methods[0] & wanted->methods[0]) || (a->methods[1] & wanted->methods[1])))
				return 1;
		}
	return 0;
}

static int add_agent(struct file *file, struct agent wanted, uint32_t *id)
{
	int error = ENOMEM;
	if (wanted.qpn > 1 || methods_taken(file, &wanted))
		error = EINVAL;
	for (int j = 0; error == ENOMEM && j < MAX_AGENTS; j++)
		if (!file->agents[j].used) {
			wanted.used = 1;
			wanted.high = ++last_high;
			file->agents[j] = wanted;
			*id = j;
			error = 0;
		}
	return error;
}

static int umad_ioctl(struct file *file, unsigned long request, void *argument)
{
	int any = 0;
	for (int j = 0; j < MAX_AGENTS; j++)
		any |= file->agents[j].used;
	switch (request) {
	case IB_USER_MAD_ENABLE_PKEY:
		if (any)
			return EINVAL;
		file->with_pkey = 1;
		return 0;
	case IB_USER_MAD_REGISTER_AGENT: {
		struct ib_user_mad_reg_req *r = argument;
		struct agent a = {.rmpp = r->rmpp_version, .qpn = r->qpn, .class = r->mgmt_class, .version = r->mgmt_class_version};
		memcpy(a.methods, r->method_mask, sizeof a.methods);
		return add_agent(file, a, &r->id);
	}
	case IB_USER_MAD_REGISTER_AGENT2: {
		struct ib_user_mad_reg_req2 *r = argument;
		struct agent a = {.rmpp = r->rmpp_version, .qpn = r->qpn, .class = r->mgmt_class, .version = r->mgmt_class_version};
		if (r->flags)
			return EINVAL; /* all that is asked for here is the kernel's RMPP */
		if (!any)
			file->with_pkey = 1;
		memcpy(a.methods, r->method_mask, sizeof a.methods);
		return add_agent(file, a, &r->id);
	}
	case IB_USER_MAD_UNREGISTER_AGENT: {
		uint32_t id = *(uint32_t *)argument;
		if (id >= MAX_AGENTS || !file->agents[id].used)
			return EINVAL;
		file->agents[id].used = 0;
		return 0;
	}
	default:
		return ENOTTY;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	ORIGINAL("ioctl", int (*)(int, unsigned long, ...));
	struct file *file = file_of(fd);
	va_list arguments;
	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	if (!file || file->issm)
		return real(fd, request, argument);
	pthread_mutex_lock(&lock);
	int error = umad_ioctl(file, request & 0xffffffff, argument);
	pthread_mutex_unlock(&lock);
	errno = error;
	return error ? -1 : 0;
}
