"""TensorBoard over a folder, in a process of its own: `python board.py FOLDER LOADER`, where the loader is `fast` or `python`.

It is TensorBoard with all its plugins, and with one more: tensors that no plugin shows are shown as they are. It reads the files once. It
prints its address when it answers, and ends when its standard input does.
"""

import json
import sys

from tensorboard import context, default, program
from tensorboard.backend import http_util
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins import base_plugin
from werkzeug import wrappers


class Tensors(base_plugin.TBPlugin):
    """What `add_tensor` writes: TensorBoard reads it, and has no view of it."""

    plugin_name = "tensor"

    def __init__(self, context):
        self.data = context.data_provider

    def get_plugin_apps(self):
        return {"/tensors": self.tensors}

    def is_active(self):
        return True

    @wrappers.Request.application
    def tensors(self, request):
        run, tag = request.args["run"], request.args["tag"]
        found = self.data.read_tensors(
            context.from_environ(request.environ),
            experiment_id="",
            plugin_name=self.plugin_name,
            downsample=100,
            run_tag_filter=RunTagFilter(runs=[run], tags=[tag]),
        )
        arrays = [(point.step, point.numpy) for point in found[run][tag]]
        shown = [[step, str(array.dtype), array.shape, array.tolist()] for step, array in arrays]
        return http_util.Respond(request, json.dumps(shown), "application/json")


def main(folder, loader):
    board = program.TensorBoard([*default.get_plugins(), base_plugin.BasicLoader(Tensors)])
    how = {"fast": ["--load_fast", "true"], "python": ["--load_fast", "false", "--reload_task", "blocking"]}
    board.configure(["board", "--logdir", folder, "--port", "0", "--reload_interval", "0", *how[loader]])
    print(board.launch(), flush=True)
    sys.stdin.read()


main(*sys.argv[1:])
