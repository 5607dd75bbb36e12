"""What spark-submit starts: a verb of jaxrec that takes --on spark, on the master that spark-submit names.

    spark-submit --master spark://host:7077 scripts/spark_job.py prepare --data logs/ --out prepared/logs
    spark-submit --master yarn scripts/spark_job.py score --run runs/a --data people.parquet --out recs

Workers need jaxrec installed (`pip install 'jaxrec[spark]'`), and see the files under the same paths as this process.
"""

import sys

from jaxrec.cli import main

if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:], "--on", "spark"]))
