"""What a search shows: the gap, runs beside each other, pictures."""

from gumbax.search.report.comparison import compare as compare
from gumbax.search.report.comparison import for_plot as for_plot
from gumbax.search.report.comparison import read_report as read_report
from gumbax.search.report.gap import ARGMAX as ARGMAX
from gumbax.search.report.gap import DRAWN as DRAWN
from gumbax.search.report.gap import RANDOM as RANDOM
from gumbax.search.report.gap import RECALIBRATED as RECALIBRATED
from gumbax.search.report.gap import RETRAINED as RETRAINED
from gumbax.search.report.gap import SOFT as SOFT
from gumbax.search.report.gap import Row as Row
from gumbax.search.report.gap import agrees as agrees
from gumbax.search.report.gap import calibrate as calibrate
from gumbax.search.report.gap import evaluate_derived as evaluate_derived
from gumbax.search.report.gap import evaluate_supernet as evaluate_supernet
from gumbax.search.report.gap import format_table as format_table
from gumbax.search.report.gap import gap_over_runs as gap_over_runs
from gumbax.search.report.gap import gaps as gaps
from gumbax.search.report.gap import over_seeds as over_seeds
from gumbax.search.report.gap import random_genotypes as random_genotypes
from gumbax.search.report.gap import train_all as train_all
from gumbax.search.report.plots import draw_choices as draw_choices
from gumbax.search.report.plots import draw_curves as draw_curves
from gumbax.search.report.plots import draw_gap as draw_gap
from gumbax.search.report.plots import draw_genotype as draw_genotype
from gumbax.search.report.plots import genotype_text as genotype_text
