"""DAgger on a robot with ROS 2: collect under a supervisor, label, retrain, evaluate, repeat.

The message types `dagger_ros.msg` and `dagger_ros.srv` are generated at build time and may lie in another
folder than this file; together they are one package.
"""

from pkgutil import extend_path

__version__ = "0.1.0"
__path__ = extend_path(__path__, __name__)
