/* Reductions of CPU tensors, without torch's dispatcher and without its headers.
 *
 * Tensors are met through their Python methods (data_ptr, numel, stride), so that one build serves
 * every torch and every CPython from 3.10 on. What cannot be read here (another device or dtype,
 * a subclass, memory with gaps) is refused, and read by gradwatch's own Python.
 */
#include "kernels.h"

void free_object(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(close_doc, "close()\n\nRead no more: hooks that are still on a graph do nothing.");

static PyObject *table_close(Table *table, PyObject *unused) {
    table->is_open = 0;
    for (int i = 0; i < MAX_RECENT; ++i) Py_CLEAR(table->recent[i].tensor);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(table_doc,
             "Table(types, dtypes, task_id, mode_counts, begin_pass, on_error, choose_stride, roots,\n"
             "      sample_size, run_length, output_column, input_column)\n\n"
             "What was read of one sampled step.");

static int table_init(Table *table, PyObject *args, PyObject *kwargs) {
    long long sample_size, run_length;
    if (!PyArg_ParseTuple(args, "O!O!OO!OOOO!LLii", &PyTuple_Type, &table->types, &PyTuple_Type,
                          &table->dtypes, &table->task_id, &PyTuple_Type, &table->mode_counts,
                          &table->begin_pass, &table->on_error, &table->choose_stride, &PySet_Type, &table->roots, &sample_size,
                          &run_length, &table->output_column, &table->input_column))
        goto failed;
    if (PyTuple_Size(table->dtypes) != UNREADABLE) {
        PyErr_Format(PyExc_ValueError, "expected %d dtypes", UNREADABLE);
        goto failed;
    }
    table->strides = PyDict_New();
    if (!table->strides) goto failed;
    Py_INCREF(table->types);
    Py_INCREF(table->dtypes);
    Py_INCREF(table->task_id);
    Py_INCREF(table->mode_counts);
    Py_INCREF(table->begin_pass);
    Py_INCREF(table->on_error);
    Py_INCREF(table->choose_stride);
    Py_INCREF(table->roots);
    table->sample_size = sample_size, table->run_length = run_length;
    table->is_open = 1, table->task = -1;
    return 0;
failed: /* nothing is owned yet */
    table->types = table->dtypes = table->task_id = table->mode_counts = NULL;
    table->begin_pass = table->on_error = table->choose_stride = table->roots = NULL;
    return -1;
}

static int table_traverse(Table *table, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(table));
    Py_VISIT(table->begin_pass);
    Py_VISIT(table->on_error);
    Py_VISIT(table->choose_stride);
    Py_VISIT(table->roots);
    return 0;
}

static int table_clear(Table *table) {
    for (int i = 0; i < MAX_RECENT; ++i) Py_CLEAR(table->recent[i].tensor);
    Py_CLEAR(table->types);
    Py_CLEAR(table->dtypes);
    Py_CLEAR(table->task_id);
    Py_CLEAR(table->mode_counts);
    Py_CLEAR(table->begin_pass);
    Py_CLEAR(table->on_error);
    Py_CLEAR(table->choose_stride);
    Py_CLEAR(table->strides);
    Py_CLEAR(table->roots);
    table->is_open = 0;
    return 0;
}

static void table_dealloc(Table *table) {
    PyObject_GC_UnTrack((PyObject *)table);
    table_clear(table);
    PyMem_Free(table->rows);
    free_object((PyObject *)table);
}

static PyMethodDef table_methods[] = {
    {"read", (PyCFunction)(void (*)(void))table_read, METH_FASTCALL, read_doc},
    {"take", (PyCFunction)table_take, METH_O, take_doc},
    {"close", (PyCFunction)table_close, METH_NOARGS, close_doc},
    {"measure", (PyCFunction)table_measure, METH_O, measure_doc},
    {"watch", (PyCFunction)(void (*)(void))table_watch, METH_FASTCALL, watch_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_doc, (void *)table_doc},    {Py_tp_init, table_init},   {Py_tp_traverse, table_traverse},
    {Py_tp_clear, table_clear},        {Py_tp_methods, table_methods},
    {Py_tp_dealloc, table_dealloc},    {0, NULL},
};
static PyType_Spec table_spec = {"gradwatch_native.kernels.Table", sizeof(Table), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, table_slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "kernels", NULL, -1, NULL,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_kernels(void) {
    PyObject *self = intern_names() < 0 ? NULL : PyModule_Create(&module);
    if (!self) return NULL;
    PyObject *table_type = PyType_FromSpec(&table_spec);
    hook_type = table_type ? PyType_FromSpec(&hook_spec) : NULL;
    if (!hook_type || PyModule_AddObject(self, "Table", table_type) < 0) {
        Py_XDECREF(table_type);
        Py_DECREF(self);
        return NULL;
    }
    return self;
}
