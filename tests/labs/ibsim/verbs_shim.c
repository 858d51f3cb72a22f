/*
 * The verbs that ibsrpdm and srp_daemon call: the devices of umad_shim.c and their P_Key tables, read out of sysfs, and
 * a queue pair for notices on which nothing ever arrives. To be preloaded together with that shim.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#undef ibv_query_port
#undef ibv_reg_mr

enum { MAX_DEVICES = 4 };

struct ibv_device **ibv_get_device_list(int *count)
{
	struct ibv_device **list = calloc(MAX_DEVICES + 1, sizeof *list);
	DIR *folder = opendir("/sys/class/infiniband");
	int n = 0;
	for (struct dirent *e; folder && n < MAX_DEVICES && (e = readdir(folder));)
		if (e->d_name[0] != '.') {
			list[n] = calloc(1, sizeof **list);
			snprintf(list[n]->name, sizeof list[n]->name, "%.60s", e->d_name);
			list[n]->node_type = IBV_NODE_CA;
			list[n++]->transport_type = IBV_TRANSPORT_IB;
		}
	if (folder)
		closedir(folder);
	if (count)
		*count = n;
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list); /* the devices stay: open contexts name them */
}

const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)qp, (void)wr, (void)bad;
	return 0;
}

/* Sends are lost on the wire, which their completion does not tell. */
static struct ibv_cq *send_cq;
static int lost;

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	(void)qp, (void)bad;
	for (; wr; wr = wr->next)
		__atomic_add_fetch(&lost, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int count, struct ibv_wc *wc)
{
	if (cq != send_cq || count < 1 || __atomic_load_n(&lost, __ATOMIC_SEQ_CST) < 1)
		return 0;
	__atomic_sub_fetch(&lost, 1, __ATOMIC_SEQ_CST);
	*wc = (struct ibv_wc){.status = IBV_WC_SUCCESS, .opcode = IBV_WC_SEND};
	return 1;
}

static int request_notify(struct ibv_cq *cq, int solicited)
{
	(void)cq, (void)solicited;
	return 0;
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct ibv_context *context = calloc(1, sizeof *context);
	context->device = device;
	context->async_fd = eventfd(0, EFD_CLOEXEC);
	context->num_comp_vectors = 1;
	context->ops.post_recv = post_recv;
	context->ops.post_send = post_send;
	context->ops.poll_cq = poll_cq;
	context->ops.req_notify_cq = request_notify;
	return context;
}

/* Objects that only have to exist. */
#define CREATE(function, type, parent_type, ...) \
	struct type *function(struct parent_type *parent, ##__VA_ARGS__) \
	{ \
		struct type *made = calloc(1, sizeof *made); \
		made->context = PARENT(parent); \
		return made; \
	}
#define DESTROY(function, type) \
	int function(struct type *object) \
	{ \
		free(object); \
		return 0; \
	}
#define PARENT(parent) (parent)
CREATE(ibv_alloc_pd, ibv_pd, ibv_context)
CREATE(ibv_create_cq, ibv_cq, ibv_context, int cqe __attribute__((unused)), void *user __attribute__((unused)),
       struct ibv_comp_channel *channel __attribute__((unused)), int vector __attribute__((unused)))
#undef PARENT
#define PARENT(parent) (parent)->context
CREATE(ibv_reg_mr, ibv_mr, ibv_pd, void *address __attribute__((unused)), size_t length __attribute__((unused)),
       int rights __attribute__((unused)))
CREATE(ibv_create_ah, ibv_ah, ibv_pd, struct ibv_ah_attr *attributes __attribute__((unused)))
DESTROY(ibv_close_device, ibv_context)
DESTROY(ibv_dealloc_pd, ibv_pd)
DESTROY(ibv_destroy_comp_channel, ibv_comp_channel)
DESTROY(ibv_destroy_cq, ibv_cq)
DESTROY(ibv_dereg_mr, ibv_mr)
DESTROY(ibv_destroy_qp, ibv_qp)
DESTROY(ibv_destroy_ah, ibv_ah)

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attributes)
{
	struct ibv_qp *qp = calloc(1, sizeof *qp);
	qp->context = pd->context;
	qp->qp_num = 2;
	send_cq = attributes->send_cq;
	return qp;
}

static struct ibv_comp_channel *waited_on;

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	waited_on = calloc(1, sizeof *waited_on);
	waited_on->context = context;
	waited_on->fd = eventfd(0, EFD_CLOEXEC);
	return waited_on;
}

/* Wait for an event. None ever comes, so that whatever ends the wait is an error: a signal, the queue pair's end. */
static int wait_in_vain(int fd)
{
	uint64_t count;
	ssize_t ignored = read(fd, &count, sizeof count);
	(void)ignored;
	return -1;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user)
{
	(void)cq, (void)user;
	return wait_in_vain(channel->fd);
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask)
{
	uint64_t one = 1;
	(void)qp;
	if (mask & IBV_QP_STATE && attributes->qp_state == IBV_QPS_ERR && waited_on)
		return write(waited_on->fd, &one, sizeof one) == sizeof one ? 0 : -1;
	return 0;
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	(void)event;
	return wait_in_vain(context->async_fd);
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
	(void)event;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned count)
{
	(void)cq, (void)count;
}

/* One hexadecimal attribute of a port. */
static int attribute(struct ibv_context *context, unsigned port, const char *name, unsigned *value)
{
	char path[300];
	FILE *file;
	int read;
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/%u/%s", context->device->name, port, name);
	if (!(file = fopen(path, "r")))
		return -1;
	read = fscanf(file, "%x", value);
	fclose(file);
	return read == 1 ? 0 : -1;
}

int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *shown)
{
	struct ibv_port_attr *a = (void *)shown;
	unsigned lid, sm_lid, state;
	if (attribute(context, port, "lid", &lid) || attribute(context, port, "sm_lid", &sm_lid) ||
	    attribute(context, port, "state", &state))
		return ENODEV;
	*a = (struct ibv_port_attr){.state = state, .lid = lid, .sm_lid = sm_lid, .pkey_tbl_len = 32, .gid_tbl_len = 1};
	return 0;
}

int ibv_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
	char name[30];
	unsigned value;
	snprintf(name, sizeof name, "pkeys/%d", index);
	if (attribute(context, port, name, &value))
		return -1;
	*pkey = htons(value);
	return 0;
}

int ibv_get_pkey_index(struct ibv_context *context, uint8_t port, __be16 pkey)
{
	__be16 entry;
	for (int i = 0; !ibv_query_pkey(context, port, i, &entry); i++)
		if (entry == pkey)
			return i;
	errno = ENOENT;
	return -1;
}
