"""Those that are compared, in the order of the columns: the limit, stigmer, its peers."""

from supervisors.bare import Bare
from supervisors.circus import Circus
from supervisors.pm2 import Pm2
from supervisors.runit import Runit
from supervisors.s6 import S6
from supervisors.stigmer import Stigmer
from supervisors.supervisord import Supervisord

ALL = [Bare, Stigmer, Pm2, Supervisord, Circus, S6, Runit]
