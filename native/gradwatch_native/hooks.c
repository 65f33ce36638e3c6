/* Hooks on nodes of an autograd graph, which read the gradients that pass. */
#include "kernels.h"

#define MAX_READ 8 /* gradients that one hook reads */

typedef struct {
    PyObject_HEAD
    Table *table;
    PyObject *probe, *see_node;
    int index, root;
} NodeHook;

enum { OUTPUT, PATH, KIND, BELOW, NUMBERS, POSITIONS }; /* fields of gradwatch.capture.plan.Probe */

PyObject *hook_type;

/* The node to which a probe leads: a new reference; NULL without an error where there is none. */
static PyObject *follow(PyObject *nodes, PyObject *probe) {
    PyObject *path = PyTuple_GetItem(probe, PATH);
    Py_ssize_t output = PyLong_AsSsize_t(PyTuple_GetItem(probe, OUTPUT));
    if (output < 0 || output >= PyList_Size(nodes)) return NULL;
    PyObject *node = PyList_GetItem(nodes, output);
    Py_INCREF(node);
    for (Py_ssize_t i = 0; node && i < PyTuple_Size(path); ++i) {
        PyObject *behind = PyObject_GetAttrString(node, "next_functions");
        Py_ssize_t step = PyLong_AsSsize_t(PyTuple_GetItem(path, i));
        Py_DECREF(node);
        node = NULL;
        if (behind && step < PyTuple_Size(behind))
            node = PyTuple_GetItem(PyTuple_GetItem(behind, step), 0);
        if (node == Py_None) node = NULL;
        Py_XINCREF(node);
        Py_XDECREF(behind);
    }
    return node;
}

/* Whether the node is of the kind that is expected, and so are those behind it; -1: an error. */
static int is_expected(PyObject *node, PyObject *probe) {
    PyObject *below = PyTuple_GetItem(probe, BELOW);
    if ((PyObject *)Py_TYPE(node) != PyTuple_GetItem(probe, KIND)) return 0;
    PyObject *behind = PyObject_GetAttrString(node, "next_functions");
    if (!behind) return -1;
    Py_ssize_t count = PyTuple_Size(behind);
    int answer = count == PyTuple_Size(below);
    for (Py_ssize_t i = 0; answer && i < count; ++i) {
        PyObject *next = PyTuple_GetItem(PyTuple_GetItem(behind, i), 0);
        answer = next && (PyObject *)Py_TYPE(next) == PyTuple_GetItem(below, i);
    }
    Py_DECREF(behind);
    return PyErr_Occurred() ? -1 : answer;
}

static PyObject *make_hook(Table *table, PyObject *probe, PyObject *see_node, int index, int root) {
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)hook_type, Py_tp_alloc);
    NodeHook *hook = (NodeHook *)allocate((PyTypeObject *)hook_type, 0);
    if (!hook) return NULL;
    Py_INCREF((PyObject *)table);
    Py_INCREF(probe);
    Py_INCREF(see_node);
    hook->table = table, hook->probe = probe, hook->see_node = see_node;
    hook->index = index, hook->root = root;
    return (PyObject *)hook;
}

/* The nodes of all probes: a new tuple; NULL, perhaps with an error, where one is another. */
static PyObject *find_nodes(PyObject *probes, PyObject *nodes) {
    PyObject *found = PyTuple_New(PyTuple_Size(probes));
    for (Py_ssize_t i = 0; found && i < PyTuple_Size(probes); ++i) {
        PyObject *probe = PyTuple_GetItem(probes, i), *node = follow(nodes, probe);
        if (node && is_expected(node, probe) == 1) {
            PyTuple_SetItem(found, i, node);
            continue;
        }
        Py_XDECREF(node);
        Py_CLEAR(found);
    }
    return found;
}

const char watch_doc[] =
    "watch(probes, nodes, index, root, see_node) -> bool\n\n"
             "Have the gradients read that arrive at some nodes and leave them, as probes say;\n"
             "see_node is called with what cannot be read here. False where the nodes are others.";

PyObject *table_watch(Table *table, PyObject *const *args, Py_ssize_t n) {
    if (n != 5 || !PyTuple_Check(args[0]) || !PyList_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "watch takes a tuple, a list, 2 numbers, a function");
    long index = PyLong_AsLong(args[2]), root = PyLong_AsLong(args[3]);
    if (PyErr_Occurred()) return NULL;
    PyObject *found = find_nodes(args[0], args[1]);
    if (!found && PyErr_Occurred()) return NULL;
    if (!found) Py_RETURN_FALSE;
    for (Py_ssize_t i = 0; i < PyTuple_Size(found); ++i) {
        PyObject *probe = PyTuple_GetItem(args[0], i), *node = PyTuple_GetItem(found, i);
        PyObject *hook = make_hook(table, probe, args[4], (int)index, (int)root), *handle = NULL;
        if (hook) handle = PyObject_CallMethod(node, "register_hook", "O", hook);
        Py_XDECREF(hook);
        Py_XDECREF(handle);
        if (!handle) {
            Py_DECREF(found);
            return NULL;
        }
    }
    Py_DECREF(found);
    Py_RETURN_TRUE;
}

/* Whether the running backward is a training pass; asked once for each. -1 with an error set. */
static int counts(Table *table) {
    int64_t task = get_number(PyObject_CallNoArgs(table->task_id));
    if (PyErr_Occurred()) return -1;
    if (task != table->task) {
        PyObject *answer = PyObject_CallNoArgs(table->begin_pass);
        if (!answer) return -1;
        table->is_training = PyObject_IsTrue(answer);
        table->task = task;
        Py_DECREF(answer);
    }
    return table->is_training;
}

/* Whether modes of the user's are in force, which would see what is asked of a tensor. */
static int sees_modes(Table *table) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(table->mode_counts); ++i) {
        int64_t count = get_number(PyObject_CallNoArgs(PyTuple_GetItem(table->mode_counts, i)));
        if (count) return count < 0 ? -1 : 1;
    }
    return 0;
}

typedef struct {
    PyObject *tensor;
    View view;
    int is_output;
} Found;

static int find_gradients(Table *table, PyObject *places, PyObject *grads, int is_output,
                          Found *found, int count) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(places); ++i) {
        Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GetItem(places, i));
        PyObject *grad = PyTuple_GetItem(grads, place);
        if (!grad || count == MAX_READ) return -1;
        if (grad == Py_None) continue;
        if (!find_view(table, grad, &found[count].view)) return -1;
        found[count].tensor = grad;
        found[count++].is_output = is_output;
    }
    return count;
}

/* Answers 1 where all was read, 0 where it is to be read in Python, -1 with an error set. */
static int read_all(NodeHook *hook, PyObject *leaving, PyObject *arriving) {
    Table *table = hook->table;
    Found found[MAX_READ];
    int modes = sees_modes(table), training = modes ? 0 : counts(table);
    if (modes || training <= 0) return modes < 0 || training < 0 ? -1 : !modes;
    int count = find_gradients(table, PyTuple_GetItem(hook->probe, NUMBERS), arriving, 1, found, 0);
    if (count >= 0) count = find_gradients(table, PyTuple_GetItem(hook->probe, POSITIONS), leaving, 0, found, count);
    if (count < 0) {
        PyErr_Clear();
        return 0;
    }
    int64_t before = table->n_rows;
    for (int i = 0; i < count; ++i) {
        int column = found[i].is_output ? table->output_column : table->input_column;
        if (!put_row(table, found[i].tensor, &found[i].view, column, hook->index, hook->root,
                     found[i].is_output)) {
            table->n_rows = before;
            return -1;
        }
    }
    PyObject *root = count ? PyLong_FromLong(hook->root) : NULL;
    int failed = count && (!root || PySet_Add(table->roots, root) < 0);
    Py_XDECREF(root);
    return failed ? -1 : 1;
}

/* Whatever was raised is gradwatch's to judge: an interruption by the user goes on. */
static PyObject *hand_over_error(Table *table) {
    PyObject *type, *value, *traceback, *answer;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    answer = PyObject_CallFunctionObjArgs(table->on_error, value, NULL);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return answer;
}

static PyObject *see_in_python(NodeHook *hook, PyObject *leaving, PyObject *arriving) {
    PyObject *index = PyLong_FromLong(hook->index), *root = PyLong_FromLong(hook->root);
    PyObject *answer = NULL;
    if (index && root)
        answer = PyObject_CallFunctionObjArgs(hook->see_node, hook->probe, index, root, leaving,
                                              arriving, NULL);
    Py_XDECREF(index);
    Py_XDECREF(root);
    return answer;
}

static PyObject *hook_call(NodeHook *hook, PyObject *args, PyObject *kwargs) {
    PyObject *leaving, *arriving;
    if (!PyArg_UnpackTuple(args, "hook", 2, 2, &leaving, &arriving)) return NULL;
    if (!hook->table->is_open) Py_RETURN_NONE;
    int is_usual = PyTuple_Check(leaving) && PyTuple_Check(arriving);
    int is_read = is_usual ? read_all(hook, leaving, arriving) : 0;
    PyObject *answer = Py_None;
    if (is_read == 0) answer = see_in_python(hook, leaving, arriving);
    if (is_read < 0) answer = hand_over_error(hook->table);
    if (!answer) return NULL;
    if (is_read <= 0) Py_DECREF(answer);
    Py_RETURN_NONE;
}

static int hook_traverse(NodeHook *hook, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(hook));
    Py_VISIT((PyObject *)hook->table);
    Py_VISIT(hook->probe);
    Py_VISIT(hook->see_node);
    return 0;
}

static int hook_clear(NodeHook *hook) {
    Py_CLEAR(hook->table);
    Py_CLEAR(hook->probe);
    Py_CLEAR(hook->see_node);
    return 0;
}

static void hook_dealloc(NodeHook *hook) {
    PyObject_GC_UnTrack((PyObject *)hook);
    hook_clear(hook);
    free_object((PyObject *)hook);
}

static PyType_Slot hook_slots[] = {
    {Py_tp_call, hook_call},       {Py_tp_traverse, hook_traverse}, {Py_tp_clear, hook_clear},
    {Py_tp_dealloc, hook_dealloc}, {0, NULL},
};
PyType_Spec hook_spec = {"gradwatch_native.kernels.NodeHook", sizeof(NodeHook), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, hook_slots};
